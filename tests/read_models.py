"""Read models that differ from Velro's own in one thing."""

from __future__ import annotations

from generation_svc.read_model.model import GenerationModel


class NewerModel(GenerationModel):
    """Another version of the tables."""

    @property
    def schema_sql(self) -> str:
        """With one more column."""
        return super().schema_sql + "\nalter table generations add column newer text;"
