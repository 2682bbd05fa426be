"""Samples as Parquet shards: a folder that Hugging Face `datasets` opens, never half-written and always resumable.

    STORE/
      dataset.json                   format version, labels, stream (where the samples come from); written first
      data/shard-000000.parquet      samples in order, at most `shard_size` of them unless the shard was appended
      data/shard-000000.json         its manifest: keys and checksums
      quality.jsonl                  scores and reasons that filters gave after the samples were written
      reviews.jsonl                  what people said of samples

One writer at a time holds the store's lock; readers need none. Reviews are appended under a lock of their own.
"""

from datasetdm.store.manifest import META
from datasetdm.store.merge import merge
from datasetdm.store.reviews import Review, append_review, read_reviews
from datasetdm.store.store import Store
from datasetdm.store.writer import Writer, write_store

__all__ = ["META", "Review", "Store", "Writer", "append_review", "merge", "read_reviews", "write_store"]
