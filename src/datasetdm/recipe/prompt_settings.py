"""Settings of making prompts: Python, recipes and the command line build the same model. This module imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from datasetdm.io.settings import Names

Source = Literal["grammar", "names", "captions", "llm", "paraphrases"]
WRITTEN = ("llm", "paraphrases")
"""Sources that need a language model; captions need one where the images have none."""


class PromptsConfig(BaseModel):
    """Settings of prompts; prompt `i` depends on them, on the labelled data and on the model's replies."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Source = Field(
        "grammar",
        description="grammar composes scenes offline, names gives class names, llm lets a language model write the scenes, "
        "captions takes those of the labelled images (a model looks at images without any), paraphrases rewords them.",
    )
    labels: Names | None = Field(
        None, min_length=1, description="Comma-separated labels; default those of the labelled data."
    )
    style: str = Field("", max_length=300, description="Kind of images, in words, for instance `dashcam photos`.")
    domains: Names = Field(
        (), description="Comma-separated conditions, for instance night,fog,snow; each, and none, equally often."
    )
    most_labels: int = Field(4, ge=1, le=20, description="Objects of so many labels in a scene at most.")
    rare_weight: float = Field(
        0.5, ge=0, le=1, description="How much rare labels are preferred: 0 as in the data, 1 all labels equally often."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Another seed gives other prompts.")
    candidates: float = Field(
        2.0,
        ge=1,
        le=100,
        description="Candidates per prompt: the most different ones are kept, near-duplicates are not.",
    )
    embedding: Literal["ngrams", "minilm"] = Field(
        "ngrams", description="What compares prompts: hashed words, or the sentence encoder of datasetdm[embeddings]."
    )
    encoder: str | None = Field(
        None, description="Backbone whose text encoder must tell the labels apart and read every prompt to its end."
    )
    base_url: str = Field(
        "https://api.openai.com/v1", description="An OpenAI-compatible server; key in OPENAI_API_KEY."
    )
    model: str | None = Field(None, description="The language model, as the server calls it.")
    temperature: float | None = Field(None, ge=0, le=2, description="Of the model's sampling; default the server's.")
    subclasses: int = Field(
        0,
        ge=0,
        le=100,
        description="Ask for so many kinds of each label first (dog: beagle, ...) and use them in scenes.",
    )
    batch: int = Field(10, ge=1, le=100, description="Prompts per request.")
    parallel: int = Field(4, ge=1, le=256, description="Requests at a time.")
    timeout: float = Field(120.0, gt=0, description="Seconds for one answer.")
    max_tokens: int | None = Field(None, ge=1, description="Stop before so many tokens are used, in and out.")
    max_cost: float | None = Field(None, gt=0, description="Stop before so much is spent; needs the prices.")
    price_in: float = Field(0.0, ge=0, description="Price of a million tokens of requests.")
    price_out: float = Field(0.0, ge=0, description="Price of a million tokens of answers.")

    def needs_model(self) -> bool:
        """Whether nothing can be made without a language model."""
        return self.source in WRITTEN


RUNNING = frozenset({"parallel", "timeout", "max_tokens", "max_cost", "price_in", "price_out"})
"""Settings of how a language model is asked, which do not change the prompts."""
CHOOSING = frozenset({"candidates", "embedding"})
"""Settings of the choice among candidates, which do not change what a language model is asked."""
