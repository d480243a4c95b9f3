"""`aws s3 sync FROM TO`, as far as deploy/README.md uses it: the one of its commands that a test machine lacks."""

import sys
from pathlib import Path

import boto3

S3 = "s3://"


def main() -> None:
    """Copy a bucket into a folder, or a folder into a bucket."""
    service, command, source, target = sys.argv[1:]
    assert (service, command) == ("s3", "sync")
    client = boto3.client("s3")
    if source.startswith(S3):
        bucket = source.removeprefix(S3)
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for found in page.get("Contents", ()):
                path = Path(target) / found["Key"]
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, found["Key"], str(path))
        return
    bucket = target.removeprefix(S3)
    for path in Path(source).rglob("*"):
        if path.is_file():
            client.upload_file(str(path), bucket, path.relative_to(source).as_posix())


if __name__ == "__main__":
    main()
