#!/bin/sh
# One database and one role a service, and no way from one to the other.
set -eu
for service in generation storage; do
  psql -v ON_ERROR_STOP=1 -h /var/run/postgresql -U "$POSTGRES_USER" -d postgres <<SQL
create role velro_$service login password '$VELRO_POSTGRES_PASSWORD';
create database velro_$service owner velro_$service;
revoke connect on database velro_$service from public;
SQL
done
