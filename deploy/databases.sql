-- One server, a database for each: what one fills or locks is not the other's.
CREATE DATABASE mlflow;
CREATE DATABASE inbox;
CREATE DATABASE prefect;
\connect prefect
CREATE EXTENSION IF NOT EXISTS pg_trgm;
