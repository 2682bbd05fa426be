"""Commands on stores: generate, annotate, edit, filter, view, merge, push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from datasetdm.cli.work import perform
from datasetdm.errors import ConfigError, StoreError
from datasetdm.io.remote import as_place
from datasetdm.pipelines.settings import FilterConfig
from datasetdm.recipe.schema import AnnotateStage, EditStage, GenerateStage, PageOptions, PageStage

_STORE = Parameter(help="The store: a new folder (or URL, s3://bucket/folder), or one that the same command began.")
_OPENED = Parameter(help="The store's folder, or its URL.")


def generate(*, stage: Annotated[GenerateStage, Parameter(name="*")], out: Annotated[str, _STORE]) -> None:
    """Generate annotated images into a store; the same command goes on with an unfinished one."""
    perform(stage, as_place(out))
    print(out)


def annotate(*, stage: Annotated[AnnotateStage, Parameter(name="*")], out: Annotated[str, _STORE]) -> None:
    """Annotate existing images into a store; the same command goes on with an unfinished one, or with new images."""
    perform(stage, as_place(out))
    print(out)


def edit(*, stage: Annotated[EditStage, Parameter(name="*")], out: Annotated[str, _STORE]) -> None:
    """Put other things into annotated images, and label the result: --replace dog=cat, --remove person, --background TEXT."""
    perform(stage, as_place(out))
    print(out)


def filter(
    store: Annotated[str, _OPENED],
    *,
    options: Annotated[FilterConfig | None, Parameter(name="*")] = None,
    clear: Annotated[
        bool, Parameter(help="Forget first what filters found since the store was written.", negative=())
    ] = False,
    dry_run: Annotated[bool, Parameter(help="Only show what would be rejected.", negative=())] = False,
) -> None:
    """Reject samples of a store by its own annotations and images; rows stay, and export, fit and evaluate skip them.

    Scores and reasons are written beside the shards, in quality.jsonl. A later run of the same filters replaces theirs. Objects
    stay in the store: unsound ones only reject their sample, beyond --tolerate.
    """
    from datasetdm.cli.bars import say, track
    from datasetdm.cli.tables import show_yield
    from datasetdm.engines.progress import Yield
    from datasetdm.pipelines.filter import filter_store, make_filters
    from datasetdm.store.store import Store

    opened, filters = Store(store), make_filters(options or FilterConfig())
    if not filters and not clear:
        raise ConfigError(
            "no filter was chosen", expected="one or more, for instance --min-area 0.002 --duplicates 0.02"
        )
    found = Yield()
    for sample in track(filter_store(opened, filters, clear, dry_run), "filter", len(opened), "sample"):
        names = [sample.labels.names[i] for i in sample.annotations.labels_in()]
        found.add(names, sample.quality.reasons)
    show_yield(found)
    if dry_run:
        say("nothing was written (--dry-run)")
    print(store)


def view(
    store: Annotated[str, _OPENED],
    *,
    port: Annotated[int, Parameter(help="Of the page on this machine, which no other can reach; 0 is a free one.")] = 0,
    open_browser: Annotated[bool, Parameter(name="--open", negative=(), help="Also open the page.")] = False,
    out: Annotated[
        Path | None, Parameter(help="Write a page to share to this file instead, for instance page.html.")
    ] = None,
    before: Annotated[
        str | None, Parameter(help="The store that this one was edited from: its images are shown beside.")
    ] = None,
    options: Annotated[PageOptions | None, Parameter(name="*")] = None,
) -> None:
    """Look at a store in the browser, filter and review it; or write its first samples as a page of one file."""
    from datasetdm.store.store import Store

    opened = Store(store)
    if not len(opened):
        raise StoreError("the store holds no samples", where=store, remedy="run the command that makes it again")
    if out is not None:
        perform(PageStage(data=store, **(options or PageOptions()).model_dump()), out)
        print(out.resolve())
        return
    from datasetdm.viewer.server import serve

    serve(opened, port, open_browser, Store(before) if before else None)


def merge(
    stores: Annotated[list[str], Parameter(help="The folders or URLs of stores with the same labels.", negative=())],
    *,
    out: Annotated[str, Parameter(help="The new store; the same command goes on with an unfinished one.")],
    prefix_keys: Annotated[
        bool,
        Parameter(
            help="Put the name of a store's folder before its keys, for stores that use the same keys.", negative=()
        ),
    ] = False,
    reviews: Annotated[
        Path | None,
        Parameter(
            help="What was corrected in Label Studio (.json) or CVAT (.xml, .zip), in an export of the one store: fixed labels and "
            "rejected images become reviews of the new store, and its samples have the shapes that were redrawn."
        ),
    ] = None,
) -> None:
    """Put several stores into a new one; their shards are linked or copied, not rewritten, unless keys or labels change."""
    from datasetdm.cli.bars import bars, say
    from datasetdm.engines.progress import Progress
    from datasetdm.io.digests import file_digest
    from datasetdm.recipe.corrections import read_corrections
    from datasetdm.recipe.places import STORE, require_folder
    from datasetdm.store.merge import Changes
    from datasetdm.store.merge import merge as merge_stores
    from datasetdm.store.reviews import append_reviews
    from datasetdm.store.store import Store

    require_folder(as_place(out), STORE)
    opened, held = [Store(s) for s in stores], 0
    if reviews is not None and (len(opened) > 1 or prefix_keys):
        raise ConfigError("--reviews is for one store", expected="the store that was exported, with its keys")
    corrected = [] if reviews is None else list(read_corrections(opened[0], reviews))
    redrawn = {c.review.key: c.change for c in corrected if c.change}
    changes = Changes(file_digest(reviews), redrawn) if reviews and redrawn else None
    with bars() as report:
        for held in merge_stores(opened, out, prefix_keys, changes):
            report(Progress("merge", held, sum(map(len, opened)), "sample"))
    if corrected:
        said = [c.review for c in corrected]
        append_reviews(as_place(out), said)
        rejected, fixed = sum(r.verdict == "reject" for r in said), sum(r.fixes for r in said)
        say(f"{len(said)} reviews: {rejected} reject, {fixed} fix labels; {len(redrawn)} images have new shapes")
    say(f"{held} samples of {len(opened)} stores")
    say(f"next: datasetdm view {out}")
    print(out)


def push(
    source: Annotated[str, Parameter(help="The folder of a store or of a decoder.")],
    url: Annotated[
        str,
        Parameter(
            help="hf://datasets/ORG/NAME for a store, hf://ORG/NAME for a decoder; it is made if it is not there."
        ),
    ],
    *,
    licence: Annotated[str, Parameter(help="What the card says, for instance cc-by-4.0.")] = "unknown",
    private: Annotated[
        bool, Parameter(help="A repository that is made is seen by its owners only.", negative=())
    ] = False,
) -> None:
    """Send a store or a decoder to the Hugging Face hub with a card; readers see all of it or nothing."""
    from datasetdm.cli.bars import say
    from datasetdm.recipe.push import push as send

    page = send(as_place(source), url, licence, private)
    say(f"next: datasetdm {'view' if url.startswith('hf://datasets/') else 'generate --decoder'} {url}")
    print(page)
