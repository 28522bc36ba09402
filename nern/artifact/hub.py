"""Files on the Hugging Face Hub, by references such as `hf://user/repo`."""

from __future__ import annotations

from pathlib import Path

from nern.errors import ArtifactError
from nern.support.messages import first_line
from nern.toolkit.optional import import_optional

SCHEME = "hf://"
FILE = "model.nern"


def is_hub(reference: str | Path) -> bool:
    """Whether a reference names a file on the Hub."""
    return isinstance(reference, str) and reference.startswith(SCHEME)


def hub_file(reference: str) -> Path:
    """The local copy of `hf://user/repo`, `hf://user/repo@revision` or `hf://user/repo/file.nern`; fetched where it is missing.

    Raises:
        ArtifactError: the reference is another one, or the Hub does not give the file.
        PluginError: huggingface_hub is not installed.
    """
    user, _, rest = reference.removeprefix(SCHEME).partition("/")
    repo, _, name = rest.partition("/")
    repo, _, revision = repo.partition("@")
    if not user or not repo:
        raise ArtifactError(f"'{reference}' must look like hf://user/repo, hf://user/repo@revision or hf://user/repo/{FILE}")
    client = import_optional("huggingface_hub", "hub", f"nern.load('{reference}')")
    try:
        return Path(client.hf_hub_download(repo_id=f"{user}/{repo}", filename=name or FILE, revision=revision or None))
    except Exception as error:  # the client raises many kinds: no network, no repository, no file, no permission
        raise ArtifactError(f"cannot get {reference} ({first_line(error)}); see to the name, the network and your token") from error
