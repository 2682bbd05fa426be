"""Repositories of the Hugging Face hub by their URLs: `hf://datasets/ORG/NAME` for data, `hf://ORG/NAME` for models."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from datasetdm.errors import ConfigError, RemoteError

Result = TypeVar("Result")

CARD = "README.md"
WRITTEN = "<!-- written by datasetdm push -->"
"""What a card says that a later push may replace; delete this line from one that was changed by hand."""

_URL = re.compile(r"hf://(datasets/)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/?")


@dataclass(frozen=True)
class Repository:
    """A repository.

    Args:
        kind: what the hub calls its type.
        id: ORG/NAME.
        revision: a branch, tag or commit; None for the main branch.
    """

    kind: Literal["dataset", "model"]
    id: str
    revision: str | None = None

    @classmethod
    def of(cls, url: str) -> Repository:
        """The repository of a URL. Raises ConfigError."""
        match = _URL.fullmatch(url)
        if match is None:
            raise ConfigError(
                f"{url!r} is no repository of the hub",
                expected="hf://datasets/ORG/NAME for a store, hf://ORG/NAME for a decoder",
            )
        return cls("dataset" if match[1] else "model", match[2], match[3])

    def __str__(self) -> str:
        kind, revision = "datasets/" if self.kind == "dataset" else "", f"@{self.revision}" if self.revision else ""
        return f"hf://{kind}{self.id}{revision}"

    def download(self, names: Sequence[str]) -> Path:
        """A folder of this machine with these files of it; what is there already is not asked for again.

        Raises:
            RemoteError: no such repository, no permission, or a hub that does not answer.
        """
        from huggingface_hub import snapshot_download

        return Path(
            self._asked(
                lambda: snapshot_download(
                    self.id, repo_type=self.kind, revision=self.revision, allow_patterns=list(names)
                )
            )
        )

    def upload(
        self, files: Mapping[str, Path], card: str, message: str, private: bool = False, below: Sequence[str] = ()
    ) -> str:
        """Bring files into the repository by one commit: readers see all of them or none. A repository that is not there is made.

        Args:
            files: path in the repository -> file.
            card: the text of its card; one that people wrote stays.
            message: of the commit.
            private: if the repository is made, only its owners see it.
            below: folders of the repository in which nothing else may be left.

        Returns:
            The address of its page.

        Raises:
            RemoteError: no permission, or a hub that does not answer.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download

        def send() -> str:
            api = HfApi()
            page = api.create_repo(self.id, repo_type=self.kind, private=private or None, exist_ok=True)
            held = set(api.list_repo_files(self.id, repo_type=self.kind, revision=self.revision))
            operations: list[CommitOperationAdd | CommitOperationDelete] = [
                CommitOperationAdd(name, str(path)) for name, path in files.items()
            ]
            if CARD in held:
                own = hf_hub_download(self.id, CARD, repo_type=self.kind, revision=self.revision)
            if CARD not in held or WRITTEN in Path(own).read_text(encoding="utf-8"):
                operations.append(CommitOperationAdd(CARD, f"{card}\n{WRITTEN}\n".encode()))
            stale = (name for name in held - {*files} if name.startswith(tuple(f"{folder}/" for folder in below)))
            operations += [CommitOperationDelete(name) for name in sorted(stale)]
            api.create_commit(self.id, operations, commit_message=message, repo_type=self.kind, revision=self.revision)
            return str(page)

        return self._asked(send)

    def _asked(self, request: Callable[[], Result]) -> Result:
        try:
            return request()
        except (OSError, ValueError) as e:  # every hub and network error is one of these
            causes = {type(x).__name__ for x in (e, e.__cause__, e.__context__)}
            refused = causes & {"GatedRepoError", "RepositoryNotFoundError", "LocalTokenNotFoundError"}
            raise RemoteError(
                f"the hub {'refuses' if refused else 'gives no good answer'}: {(str(e).strip() or repr(e)).splitlines()[0][:200]}",
                where=self,
                expected="a repository that this account may use",
                remedy="log in by `hf auth login`, or set HF_TOKEN to a token that may do this; check the name"
                if refused
                else "check the network and the name, then run the same command again",
            ) from e
