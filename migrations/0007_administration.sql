-- One row that every act of administration changes first, so that two of them at once come one after the other: a rule over
-- several users, such as that an administrator stays, is safe under snapshot isolation only so.
CREATE TABLE administration (
  id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
  acts BIGINT NOT NULL
);
INSERT INTO administration (id, acts) VALUES (1, 0);

-- The few who may administer.
CREATE INDEX app_user_admin ON app_user (role) WHERE role = 'admin';

CREATE INDEX audit_event_actor ON audit_event (actor, at, id);
CREATE INDEX audit_event_address ON audit_event (at) WHERE address IS NOT NULL;
