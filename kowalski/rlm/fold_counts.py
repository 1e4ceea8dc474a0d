"""What all folds together have saved, and what became of the facts in them."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class FoldCounts:
    """Tokens by estimate. `facts` were looked for in folds by models only."""

    folds: int = 0
    by_model: int = 0
    source_tokens: int = 0
    tokens: int = 0
    facts: int = 0
    facts_kept: int = 0
    unfolds: int = 0

    @property
    def ratio(self) -> float:
        """Of what is left to what there was; 1 where nothing was folded."""
        return self.tokens / self.source_tokens if self.source_tokens else 1.0

    def folded(self, source_tokens: int, tokens: int) -> FoldCounts:
        return replace(
            self,
            folds=self.folds + 1,
            source_tokens=self.source_tokens + source_tokens,
            tokens=self.tokens + tokens,
        )

    def folded_by_model(
        self, source_tokens: int, tokens: int, *, facts: int, facts_kept: int
    ) -> FoldCounts:
        return replace(
            self.folded(source_tokens, tokens),
            by_model=self.by_model + 1,
            facts=self.facts + facts,
            facts_kept=self.facts_kept + facts_kept,
        )

    def unfolded(self) -> FoldCounts:
        return replace(self, unfolds=self.unfolds + 1)
