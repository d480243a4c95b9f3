#!/bin/sh
# Make the secrets of a deployment, once: deploy/.env, readable by its owner alone and known to no repository.
set -eu
cd "$(dirname "$0")"
[ -e .env ] && { echo "deploy/.env is there already; remove it to make new secrets" >&2; exit 1; }
umask 077
secret() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
{
  echo "POSTGRES_PASSWORD=$(secret)"
  echo "S3_KEY=$(secret | cut -c1-20)"
  echo "S3_SECRET=$(secret)"
  echo "FLYWHEEL_RANK_TOKEN=$(secret)"
  echo "FLYWHEEL_INGEST_TOKEN=$(secret)"
} > .env
echo "deploy/.env is written; give the two FLYWHEEL tokens to whoever calls the server"
