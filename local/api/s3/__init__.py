"""S3's wire protocol over the bucket store: `S3Handler(buckets)` answers HTTP requests."""

from __future__ import annotations

from byoa.local.api.s3.handler import S3Handler

__all__ = ["S3Handler"]
