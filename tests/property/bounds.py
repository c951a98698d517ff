"""How much the property tests draw: little and always the same, or with `deep` much and new.

pytest tests/property --hypothesis-profile=deep
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

DEEP, DEEPER = "deep", 8
settings.register_profile(DEEP, print_blob=True)


def bounded(examples: int) -> settings:
    """Half of `examples` draws, the same in every run, so that a commit passes or fails for what is
    in it; DEEPER times as many, and others each time, under the profile `deep`.
    """
    deep = settings.get_current_profile_name() == DEEP
    return settings(
        max_examples=examples * DEEPER if deep else max(5, examples // 2),
        deadline=None,  # the machine's load is no property of the code
        derandomize=not deep,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
