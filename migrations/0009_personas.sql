-- What the settings have said of each companion, by version. Rows are only added: conversations go on with the version
-- that they were begun with. `body` is sealed with the service's key.
CREATE TABLE persona (
  companion_id TEXT NOT NULL,
  version TEXT NOT NULL,
  body BYTEA NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (companion_id, version)
);

-- NULL for conversations from before: the version that the settings say.
ALTER TABLE conversation ADD COLUMN persona_version TEXT;
