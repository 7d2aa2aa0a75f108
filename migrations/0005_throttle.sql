-- Token buckets. `key` is a keyed hash of what is limited, such as an address; `full_at` says when the bucket is full again.
CREATE TABLE throttle (
  key BYTEA NOT NULL PRIMARY KEY,
  full_at BIGINT NOT NULL
);
CREATE INDEX throttle_full ON throttle (full_at);

-- Wrong passwords in a row. `account` is a user's id, or a keyed hash of an address that is nobody's: both cost the same
-- work, so that nobody learns which of them it was.
CREATE TABLE password_failure (
  account BYTEA NOT NULL PRIMARY KEY,
  user_id UUID REFERENCES app_user (id) ON DELETE CASCADE,
  failures BIGINT NOT NULL,
  unlock_hash BYTEA UNIQUE,
  mailed_at BIGINT,
  updated_at BIGINT NOT NULL
);
CREATE INDEX password_failure_user ON password_failure (user_id);
CREATE INDEX password_failure_of_nobody ON password_failure (updated_at) WHERE user_id IS NULL;
