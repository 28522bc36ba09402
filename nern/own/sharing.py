"""Shares a representation on the Hugging Face Hub, with a model card made from the result."""

from __future__ import annotations

from pathlib import Path

from nern.artifact.hub import FILE
from nern.errors import ArtifactError
from nern.run.results import Result
from nern.support.messages import first_line
from nern.toolkit.optional import import_optional


def push_to_hub(
    result: Result, repo: str, *, private: bool = False, token: str | None = None, message: str = "Add a representation"
) -> str:
    """Upload a run's file with a model card; returns the reference that `nern.load` takes.

    Only the file and the card are uploaded: the configuration in the run's folder contains paths on this machine.

    Args:
        repo: `user/name`; it is made where it does not exist.
        token: the Hub's token; by default that of the login of the Hub's own client.

    Raises:
        ArtifactError: the run's file is gone, or the Hub refuses it.
        PluginError: huggingface_hub is not installed.
    """
    file = Path(result.artifact)
    if not file.is_file():
        raise ArtifactError(f"there is no {file} any more, which would be uploaded")
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise ArtifactError(f"'{repo}' must look like user/name")
    client = import_optional("huggingface_hub", "hub", "push_to_hub")
    try:
        hub = client.HfApi(token=token)
        hub.create_repo(repo_id=repo, private=private, exist_ok=True)
        for content, name in ((str(file), FILE), (model_card(result, repo).encode(), "README.md")):
            hub.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=repo, commit_message=message)
    except Exception as error:  # the client raises many kinds: no network, no permission
        raise ArtifactError(f"the Hub does not take {repo} ({first_line(error)}); see to the name, the network and your token") from error
    return f"hf://{repo}"


def model_card(result: Result, repo: str) -> str:
    """The README.md of a repository: describes the file, its figures, and how to read it."""
    sizes, headline = result.bytes, result.headline
    rows = [f"| bytes | {sizes.original:,} | {sizes.total:,} |"]
    if headline is not None and headline[1] is not None and headline[2] is not None:
        rows.insert(0, f"| {headline[0]} | {headline[1]:.4g} | {headline[2]:.4g} |")
    table = "\n".join(["| | original | this file |", "| --- | ---: | ---: |", *rows])
    return f"""---
library_name: nern
tags: [nern, neural-representation, model-compression]
---

# {repo.rpartition("/")[2]}

A neural representation of a network (Ashkenazi et al., *NeRN: Learning Neural Representations for Neural Networks*, ICLR 2023):
a small predictor maps the coordinates of the network's kernels to their weights.

{table}

Figures are of {result.iterations:,} steps, seed {result.seed}, nern {result.environment.get("nern", "of an unknown version")}.

```python
import nern

state = nern.load("hf://{repo}").state_dict()          # the network's weights
model = nern.load("hf://{repo}", into=MyNetwork())     # in a module of your own
```
"""
