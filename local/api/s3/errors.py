"""S3's errors: code, HTTP status and message as AWS words them, answered as XML."""

from __future__ import annotations

from byoa.local.errors import AwsError

__all__ = ["S3Error", "no_such_bucket", "no_such_key", "no_such_upload", "not_implemented"]

_KNOWN = {
    "AccessControlListNotSupported": (400, "The bucket does not allow ACLs"),
    "AccessDenied": (403, "Access Denied"),
    "BadDigest": (400, "The Content-MD5 you specified did not match what we received."),
    "BucketAlreadyOwnedByYou": (
        409,
        "Your previous request to create the named bucket succeeded and you already own it.",
    ),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty"),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size"),
    "EntityTooSmall": (
        400,
        "Your proposed upload is smaller than the minimum allowed size",
    ),
    "IncompleteBody": (
        400,
        "You did not provide the number of bytes specified by the Content-Length HTTP header.",
    ),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidDigest": (400, "The Content-MD5 you specified was invalid."),
    "InvalidPart": (
        400,
        "One or more of the specified parts could not be found.  The part may not have been "
        "uploaded, or the specified entity tag may not match the part's entity tag.",
    ),
    "InvalidPartOrder": (
        400,
        "The list of parts was not in ascending order. Parts must be ordered by part number.",
    ),
    "InvalidRange": (416, "The requested range is not satisfiable"),
    "InvalidURI": (400, "Couldn't parse the specified URI."),
    "KeyTooLongError": (400, "Your key is too long"),
    "MalformedXML": (
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    ),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchUpload": (
        404,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may "
        "have been aborted or completed.",
    ),
    "PreconditionFailed": (
        412,
        "At least one of the pre-conditions you specified did not hold",
    ),
    "ServerSideEncryptionConfigurationNotFoundError": (
        404,
        "The server side encryption configuration was not found",
    ),
}


class S3Error(AwsError):
    """An error of S3; `members` are further elements of the XML (BucketName, Key …)."""

    def __init__(
        self, code: str, message: str | None = None, *, status: int | None = None, **members: str
    ) -> None:
        known_status, known_message = _KNOWN.get(code, (400, code))
        super().__init__(
            code, message or known_message, status=status or known_status, members=members
        )


def no_such_bucket(bucket: str) -> S3Error:
    return S3Error("NoSuchBucket", BucketName=bucket)


def no_such_key(key: str) -> S3Error:
    return S3Error("NoSuchKey", Key=key)


def no_such_upload(upload: str) -> S3Error:
    return S3Error("NoSuchUpload", UploadId=upload)


def not_implemented(what: str, instead: str) -> S3Error:
    """A refusal that names the nearest that is run here."""
    return S3Error("NotImplemented", f"{what} is not run here; {instead}", status=501)
