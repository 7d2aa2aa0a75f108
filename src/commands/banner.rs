//! What `dev` prints when it is ready: where things are, and what to type next.

use super::{Failure, say};
use crate::config::Config;

/// Prints it, once.
pub fn print(config: &Config, port: u16) -> Result<(), Failure> {
    say(&text(config, port))
}

fn text(config: &Config, port: u16) -> String {
    let base = format!("http://localhost:{port}");
    let ids: Vec<String> = config
        .companions
        .cards()
        .into_iter()
        .filter(|card| card.available)
        .map(|card| format!("{} ({})", card.id, card.name))
        .collect();
    let consents: Vec<String> = config
        .auth
        .policies
        .iter()
        .filter(|policy| policy.required)
        .map(|policy| format!(r#"{{"document":"{}","version":"{}"}}"#, policy.document, policy.version))
        .collect();
    let consents = consents.join(",");
    let ids = ids.join(", ");
    format!(
        r#"
  API         {base}/v1
  Docs        {base}/docs
  Mailbox     {base}/dev/mailbox
  Companions  {ids}

  Sign up, take the code from the mailbox, and talk. Copy these five lines into another terminal:

  EMAIL=ann$RANDOM@example.com
  SIGNUP=$(curl -s {base}/v1/auth/signup -H 'content-type: application/json' -d '{{"email":"'$EMAIL'","password":"seven quiet lanterns at dusk","birth_date":"1990-12-31","consents":[{consents}]}}' | sed 's/.*"signup_token":"\([^"]*\).*/\1/')
  CODE=$(sleep 1; curl -s "{base}/dev/mailbox/messages?to=$EMAIL" | grep -oE '[0-9]{{8}}' | head -n 1)
  TOKEN=$(curl -s {base}/v1/auth/signup/verify -H 'content-type: application/json' -d '{{"signup_token":"'$SIGNUP'","code":"'$CODE'"}}' | sed 's/.*"access_token":"\([^"]*\).*/\1/')
  curl -N {base}/v1/chat -H "authorization: Bearer $TOKEN" -H 'content-type: application/json' -d '{{"id":"first","message":{{"id":"m1","role":"user","parts":[{{"type":"text","text":"Good evening!"}}]}}}}'

  Development helpers are on (demo companion, mailbox page): this is not for production. Ctrl-C ends it.
"#
    )
}
