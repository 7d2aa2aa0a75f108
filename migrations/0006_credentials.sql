-- Ways to a new password, known by the address's keyed hash: a newer one takes an older one's place. Without a user it is
-- a decoy: the address is nobody's, and no mail was sent.
CREATE TABLE password_reset (
  email_mac BYTEA NOT NULL PRIMARY KEY,
  user_id UUID REFERENCES app_user (id) ON DELETE CASCADE,
  token_hash BYTEA NOT NULL UNIQUE,
  expires_at BIGINT NOT NULL
);
CREATE INDEX password_reset_user ON password_reset (user_id);
CREATE INDEX password_reset_expiry ON password_reset (expires_at);

-- New addresses that wait for the code that was sent there, one for each session. `email` is sealed.
CREATE TABLE email_change (
  session_id UUID NOT NULL PRIMARY KEY,
  id UUID NOT NULL,
  user_id UUID NOT NULL REFERENCES app_user (id) ON DELETE CASCADE,
  decoy BOOLEAN NOT NULL,
  email BYTEA NOT NULL,
  code_mac BYTEA NOT NULL,
  tries_left BIGINT NOT NULL,
  expires_at BIGINT NOT NULL
);
CREATE INDEX email_change_user ON email_change (user_id);
CREATE INDEX email_change_expiry ON email_change (expires_at);

-- Ways back to an address that was given up. `number` orders a user's changes; `email` is sealed.
CREATE TABLE email_undo (
  token_hash BYTEA NOT NULL PRIMARY KEY,
  user_id UUID NOT NULL REFERENCES app_user (id) ON DELETE CASCADE,
  number BIGINT NOT NULL,
  email BYTEA NOT NULL,
  expires_at BIGINT NOT NULL,
  UNIQUE (user_id, number)
);
CREATE INDEX email_undo_expiry ON email_undo (expires_at);

-- Addresses that only `user_id` may take until `until`. Whoever takes an address writes its row first, so that two who want
-- the same one come one after the other.
CREATE TABLE held_address (
  email_mac BYTEA NOT NULL PRIMARY KEY,
  user_id UUID NOT NULL,
  until BIGINT NOT NULL
);
CREATE INDEX held_address_end ON held_address (until);
