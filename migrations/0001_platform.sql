-- Wrapped data keys, in a table of their own: backups write them to a file of their own.
-- Destroying a user's row here makes everything that was sealed for that user unreadable.
CREATE TABLE data_key (
  owner TEXT NOT NULL PRIMARY KEY,
  id UUID NOT NULL,
  master_key TEXT NOT NULL,
  wrapped BYTEA NOT NULL,
  created_at BIGINT NOT NULL
);

-- Work that must follow a commit. A claimed row is due again when its claim runs out.
CREATE TABLE job (
  id UUID NOT NULL PRIMARY KEY,
  kind TEXT NOT NULL,
  payload BYTEA NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('waiting', 'dead')),
  attempts BIGINT NOT NULL,
  run_at BIGINT NOT NULL,
  last_error TEXT,
  created_at BIGINT NOT NULL
);
CREATE INDEX job_due ON job (status, run_at);
