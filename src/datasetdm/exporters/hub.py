"""Uploading an exported dataset to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from datasetdm.errors import ConfigError, OutputError


def push_to_hub(folder: Path | str, repository: str, private: bool = True) -> str:
    """Upload a folder that `export` wrote as the dataset OWNER/NAME; its address.

    Raises:
        ConfigError: no OWNER/NAME. OutputError: no network, no account, no right to write there.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    if repository.count("/") != 1:
        raise ConfigError(f"dataset {repository!r}", expected="OWNER/NAME, as on the hub")
    if not (Path(folder) / "README.md").is_file():
        raise ConfigError("there is no dataset to upload", where=folder, expected="a folder of `export --format hf`")
    if constants.HF_HUB_OFFLINE:
        raise OutputError("the hub is switched off", where="HF_HUB_OFFLINE", expected="a network", remedy="unset it")
    try:
        api = HfApi()
        api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, repo_type="dataset", folder_path=folder)
    except HFValidationError as e:
        raise ConfigError(f"dataset {repository!r}: {e}", expected="OWNER/NAME, as on the hub") from e
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError, RuntimeError) as e:
        raise OutputError(
            f"the upload failed: {(str(e) or repr(e)).splitlines()[0]}", where=repository,
            expected="a network, and an account that may write there", remedy="run `hf auth login`, then upload again",
        ) from e  # fmt: skip
    return f"https://huggingface.co/datasets/{repository}"
