//! Basic authentication against bcrypt hashes. A check takes a tenth of a second or more on purpose, so it runs beside the
//! daemon's own work, one at a time, and passwords that were right are remembered by a digest.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;
use ring::digest::{Context, SHA256};
use tokio::sync::Semaphore;

/// A hash of nothing that anybody knows: who names an unknown user waits as long as who names a known one.
const NOBODY: &str = "$2b$10$abcdefghijklmnopqrstuu3Vl0bZyqKTPVnTSsQSCuV3WBLmQX1d2";
/// So many passwords that were right are remembered.
const REMEMBERED: usize = 100;
/// So many may wait for their passwords to be checked.
const QUEUE: usize = 8;

/// Checks passwords.
pub struct Doorman {
    known: std::cell::RefCell<HashSet<Vec<u8>>>,
    turn: Semaphore,
    queue: Rc<Semaphore>,
}

/// What comes of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Come in.
    Welcome,
    /// Wrong or missing.
    Unknown,
    /// Too many want to know at once.
    Later,
}

impl Default for Doorman {
    fn default() -> Self {
        Self {
            known: std::cell::RefCell::default(),
            turn: Semaphore::new(1),
            queue: Rc::new(Semaphore::new(QUEUE)),
        }
    }
}

impl Doorman {
    /// Whether who sends this header may come in.
    pub async fn check(&self, users: &BTreeMap<String, String>, header: Option<&HeaderValue>) -> Answer {
        if users.is_empty() {
            return Answer::Welcome;
        }
        let Some((user, password)) = header.and_then(credentials) else { return Answer::Unknown };
        let known = users.get(&user);
        let hash = known.map_or(NOBODY, String::as_str).to_owned();
        let digest = digest(&[user.as_bytes(), &password, hash.as_bytes()]);
        if known.is_some() && self.known.borrow().contains(&digest) {
            return Answer::Welcome;
        }
        let Ok(_place) = self.queue.try_acquire() else { return Answer::Later };
        let Ok(_turn) = self.turn.acquire().await else { return Answer::Later };
        let right =
            tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await;
        if known.is_none() || !right.unwrap_or(false) {
            return Answer::Unknown;
        }
        let mut all = self.known.borrow_mut();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(digest);
        Answer::Welcome
    }
}

/// User and password.
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, value) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(value.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

/// Of each part with its length, so that nothing can be moved from one to the next.
fn digest(parts: &[&[u8]]) -> Vec<u8> {
    let mut sum = Context::new(&SHA256);
    for part in parts {
        sum.update(&part.len().to_le_bytes());
        sum.update(part);
    }
    sum.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> HeaderValue {
        HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(text))).unwrap()
    }

    #[test]
    fn what_clients_send() {
        assert_eq!(credentials(&header("a:b:c")), Some(("a".into(), b"b:c".to_vec())));
        assert_eq!(credentials(&header(":")), Some((String::new(), Vec::new())));
        for text in ["Basic", "Basic !", "Bearer YTpi", "Basic YQ=="] {
            assert_eq!(credentials(&HeaderValue::from_static(text)), None, "{text}");
        }
    }

    #[tokio::test]
    async fn only_who_knows_the_password_comes_in() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let users = BTreeMap::from([("prometheus".to_owned(), hash)]);
        let doorman = Doorman::default();
        for (text, wanted) in [
            ("prometheus:secret", Answer::Welcome),
            ("prometheus:secret", Answer::Welcome),
            ("prometheus:Secret", Answer::Unknown),
            ("prometheus:", Answer::Unknown),
            ("nobody:secret", Answer::Unknown),
        ] {
            assert_eq!(doorman.check(&users, Some(&header(text))).await, wanted, "{text}");
        }
        assert_eq!(doorman.known.borrow().len(), 1);
        assert_eq!(doorman.check(&users, None).await, Answer::Unknown);
        assert_eq!(doorman.check(&BTreeMap::new(), None).await, Answer::Welcome);
        // A new password makes the old one worthless at once.
        let users = BTreeMap::from([("prometheus".to_owned(), bcrypt::hash("other", 4).unwrap())]);
        assert_eq!(doorman.check(&users, Some(&header("prometheus:secret"))).await, Answer::Unknown);
    }

    #[test]
    fn the_unknown_users_hash_is_one() {
        assert_eq!(NOBODY.parse::<bcrypt::HashParts>().unwrap().get_cost(), 10);
    }
}
