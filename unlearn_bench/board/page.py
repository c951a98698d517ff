"""From what a report shows to the bytes of its one HTML file.

Every value that a template prints is first made inert (`visible`) and then escaped, whoever wrote
the template: text from a model, a method's file or a path cannot become markup, script or an
invisible mark. The policy in the page's head lets nothing run or load but its own script and style.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from unlearn_bench.board.visible import cut, visible

TEMPLATES = Path(__file__).parent / "templates"
SHORT = 280  # characters of an answer that stand open; the rest is in a fold


def render_page(content: Mapping[str, Any]) -> str:
    """The page. Raises jinja2.UndefinedError for what the template names and `content` lacks."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_inert,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cut": cut, "visible": visible}
    style, script = ((TEMPLATES / f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    own = {
        "style": Markup(style),  # noqa: S704 - our own files
        "script": Markup(script),  # noqa: S704
        "policy": policy(style, script),
        "short": SHORT,
    }
    return environment.get_template("report.html").render({**own, **content})


def drawing(svg: str) -> Markup:
    """A drawing of ours, to stand in the page as it is: its texts were escaped by its writer."""
    return Markup(svg)  # noqa: S704


def policy(style: str, script: str) -> str:
    """The content-security policy: nothing but these very texts."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _inert(value: Any) -> Any:
    """What a template prints. Undefined raises here; a dict's method is a name that it shadows."""
    if callable(value):
        raise TypeError(f"the template prints a function, {value.__name__}")
    return value if isinstance(value, Markup) else visible(str(value))
