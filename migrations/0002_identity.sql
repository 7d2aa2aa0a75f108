CREATE TABLE app_user (
  id UUID NOT NULL PRIMARY KEY,
  email TEXT NOT NULL,
  email_key TEXT NOT NULL UNIQUE,
  email_verified BOOLEAN NOT NULL,
  password_hash TEXT,
  role TEXT NOT NULL CHECK (role IN ('user', 'admin')),
  display_name BYTEA,
  locale TEXT,
  time_zone TEXT,
  birth_date BYTEA,
  age_assurance TEXT NOT NULL CHECK (age_assurance IN ('declared', 'operator')),
  suspended_at BIGINT,
  suspended_until BIGINT,
  suspension_reason BYTEA,
  created_at BIGINT NOT NULL
);

-- Append-only: which version of which document was accepted, and when.
CREATE TABLE consent (
  user_id UUID NOT NULL REFERENCES app_user (id) ON DELETE CASCADE,
  document TEXT NOT NULL,
  version TEXT NOT NULL,
  accepted_at BIGINT NOT NULL,
  PRIMARY KEY (user_id, document, version)
);

-- Not users yet, and known by their token only. `email_mac` is a keyed hash; decoys look like all others.
CREATE TABLE pending_signup (
  token_hash BYTEA NOT NULL PRIMARY KEY,
  id UUID NOT NULL UNIQUE,
  email_mac BYTEA NOT NULL,
  decoy BOOLEAN NOT NULL,
  details BYTEA NOT NULL,
  code_mac BYTEA NOT NULL,
  code_expires_at BIGINT NOT NULL,
  tries_left BIGINT NOT NULL,
  resends_left BIGINT NOT NULL,
  resend_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL
);
CREATE INDEX pending_signup_address ON pending_signup (email_mac);
CREATE INDEX pending_signup_expiry ON pending_signup (expires_at);

CREATE TABLE age_refusal (
  email_mac BYTEA NOT NULL PRIMARY KEY,
  expires_at BIGINT NOT NULL
);
CREATE INDEX age_refusal_expiry ON age_refusal (expires_at);

CREATE TABLE session (
  id UUID NOT NULL PRIMARY KEY,
  user_id UUID NOT NULL REFERENCES app_user (id) ON DELETE CASCADE,
  refresh_hash BYTEA NOT NULL,
  token_gen BIGINT NOT NULL,
  auth_time BIGINT NOT NULL,
  device_name TEXT,
  address TEXT,
  created_at BIGINT NOT NULL,
  last_seen_at BIGINT NOT NULL,
  idle_expires_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL
);
CREATE INDEX session_of_user ON session (user_id);
CREATE INDEX session_idle_expiry ON session (idle_expires_at);

-- In the public set from `published_at`, signing from `activates_at` until the next one does, gone at `retires_at`.
-- `src/auth/tokens/keys.rs` reads these times.
CREATE TABLE signing_key (
  number BIGINT NOT NULL PRIMARY KEY,
  kid TEXT NOT NULL UNIQUE,
  public_key BYTEA NOT NULL,
  private_key BYTEA NOT NULL,
  published_at BIGINT NOT NULL,
  activates_at BIGINT NOT NULL,
  retires_at BIGINT,
  revoked_at BIGINT
);
