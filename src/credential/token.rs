//! Session tokens: JWT (RFC 7519) signed with HS256, one key for each audience.
//!
//! We are the only one who issues them, so we accept only what we would have written: the header
//! must be ours byte for byte, which leaves nothing of it to interpret (no `alg`, no `jku`, no
//! `crit`), and the claims must be all of ours and nothing else. A token names its subject by
//! number, since a name can be taken again by somebody else, and carries the version of the
//! subject's sessions: whoever verifies compares it with the row, so that one step of that version
//! ends them all. It also names its own session, which can be ended alone.
//!
//! Times are compared with the `now` that is handed in.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::derive_key;
use crate::clock::Timestamp;
use crate::ids::SessionId;

const ISSUER: &str = "tollgate";
const LEEWAY_SECONDS: i64 = 5;
const MAX_TOKEN_BYTES: usize = 4096;

/// Whom a session is for. A token of one audience is rubbish to every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Owners of API keys.
    User,
    /// Those who help them.
    Staff,
    /// Those who run the installation.
    Admin,
}

/// Issues sessions and recognises them.
pub struct Tokens {
    ttl: Duration,
    user: Signer,
    staff: Signer,
    admin: Signer,
}

/// A new session, to be handed to the one who logged in.
#[derive(Debug)]
pub struct Issued {
    /// The token, as it travels after `Bearer `.
    pub token: SecretString,
    /// How long it will be accepted.
    pub expires_in: Duration,
}

/// What a valid token says. Whether the session still stands is for the rows to say: `version` must
/// be the subject's, and the session's own row must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The session that the token was issued in.
    pub id: SessionId,
    /// The row's number in the table of the audience.
    pub subject: i64,
    /// The version of the subject's sessions when this one began.
    pub version: i64,
    /// When the token was issued, in whole seconds; the session may be older.
    pub issued_at: Timestamp,
}

/// Why a token is refused. For counting; who sent it is told only that it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidToken {
    /// Longer than 4 KiB, or not three parts.
    #[error("the session token is malformed")]
    Malformed,
    /// Its header is not the one we write for this audience: another issuer, key or algorithm.
    #[error("the session token is not one of ours for this audience")]
    Foreign,
    /// The signature or the claims are not what we would have written.
    #[error("the session token is forged")]
    Forged,
    /// It is for later.
    #[error("the session token is not valid yet")]
    Early,
    /// Its time is over.
    #[error("the session token has expired")]
    Expired,
}

/// A token could not be signed: a broken installation.
#[derive(Debug, Error)]
#[error("no session token could be signed")]
pub struct SigningFailed(#[source] jsonwebtoken::errors::Error);

struct Signer {
    audience: Audience,
    header: Header,
    /// The header as it stands in every token of this key.
    encoded_header: String,
    signing: EncodingKey,
    verifying: DecodingKey,
    validation: Validation,
}

/// Every claim is required and no other is accepted; numbers must be numbers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: Audience,
    sub: String,
    ver: i64,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
    sid: String,
}

// === impl Audience ===

impl Audience {
    /// The word in the `aud` claim.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Staff => "staff",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Tokens ===

impl Tokens {
    /// Derives a key for each audience. Sessions live for `ttl`, in whole seconds.
    #[must_use]
    pub fn new(secret: &SecretString, ttl: Duration) -> Self {
        // The library keeps its provider for the whole process; another gateway in this process
        // installed the same one.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let signer = |audience| Signer::new(secret, audience);
        Self {
            ttl: Duration::from_secs(ttl.as_secs()),
            user: signer(Audience::User),
            staff: signer(Audience::Staff),
            admin: signer(Audience::Admin),
        }
    }

    /// A token for a session, as of its `issued_at`.
    ///
    /// # Errors
    ///
    /// [`SigningFailed`], which a working installation never sees.
    pub fn issue(&self, audience: Audience, session: &Session) -> Result<Issued, SigningFailed> {
        let now = session.issued_at.unix_seconds();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: audience,
            sub: session.subject.to_string(),
            ver: session.version,
            iat: now,
            nbf: now,
            exp: now.saturating_add(i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX)),
            jti: Uuid::new_v4().simple().to_string(),
            sid: session.id.to_string(),
        };
        let signer = self.signer(audience);
        let token = jsonwebtoken::encode(&signer.header, &claims, &signer.signing).map_err(SigningFailed)?;
        Ok(Issued { token: SecretString::from(token), expires_in: self.ttl })
    }

    /// Reads a token that was presented to `audience` at `now`, with 5 seconds of leeway for clocks
    /// that differ.
    ///
    /// # Errors
    ///
    /// [`InvalidToken`], for everything that [`issue`](Self::issue) did not write with this secret
    /// for this audience, and for what it wrote too long ago.
    pub fn verify(&self, audience: Audience, token: &str, now: Timestamp) -> Result<Session, InvalidToken> {
        if token.len() > MAX_TOKEN_BYTES || token.bytes().filter(|byte| *byte == b'.').count() != 2 {
            return Err(InvalidToken::Malformed);
        }
        let signer = self.signer(audience);
        if token.split('.').next() != Some(signer.encoded_header.as_str()) {
            return Err(InvalidToken::Foreign);
        }
        let claims = signer.claims(token)?;
        let now = now.unix_seconds();
        if claims.nbf.max(claims.iat) > now.saturating_add(LEEWAY_SECONDS) {
            return Err(InvalidToken::Early);
        }
        if claims.exp <= now.saturating_sub(LEEWAY_SECONDS) {
            return Err(InvalidToken::Expired);
        }
        claims.session().ok_or(InvalidToken::Forged)
    }

    fn signer(&self, audience: Audience) -> &Signer {
        match audience {
            Audience::User => &self.user,
            Audience::Staff => &self.staff,
            Audience::Admin => &self.admin,
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

// === impl Signer ===

impl Signer {
    fn new(secret: &SecretString, audience: Audience) -> Self {
        let key = derive_key(secret, &format!("tollgate session {audience} v1"));
        let name = derive_key(secret, &format!("tollgate session {audience} v1 key id"));
        let short_name = name.first_chunk::<9>().copied().unwrap_or_default();
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(URL_SAFE_NO_PAD.encode(short_name));
        #[expect(clippy::expect_used, reason = "a struct of texts always has a JSON form")]
        let header_json = serde_json::to_vec(&header).expect("a header is JSON");
        Self {
            audience,
            encoded_header: URL_SAFE_NO_PAD.encode(header_json),
            header,
            signing: EncodingKey::from_secret(key.as_ref()),
            verifying: DecodingKey::from_secret(key.as_ref()),
            validation: validation(audience),
        }
    }

    fn claims(&self, token: &str) -> Result<Claims, InvalidToken> {
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.verifying, &self.validation);
        let claims = decoded.map_err(|_| InvalidToken::Forged)?.claims;
        let ours = claims.iss == ISSUER && claims.aud == self.audience;
        if ours { Ok(claims) } else { Err(InvalidToken::Forged) }
    }
}

/// What the library checks for us. Times are not among it: it would ask the machine's clock.
fn validation(audience: Audience) -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[audience.as_str()]);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
    validation
}

// === impl Claims ===

impl Claims {
    fn session(&self) -> Option<Session> {
        let subject: i64 = self.sub.parse().ok()?;
        let id = SessionId(Uuid::try_parse(&self.sid).ok()?);
        let as_we_write_it =
            subject.to_string() == self.sub && id.to_string() == self.sid && self.iat <= self.exp;
        let issued_at = Timestamp(self.iat.checked_mul(1000)?);
        as_we_write_it.then_some(Session { id, subject, version: self.ver, issued_at })
    }
}

#[cfg(test)]
#[expect(clippy::string_slice, reason = "a test may panic")]
mod tests {
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
    use jsonwebtoken::{Algorithm, EncodingKey};
    use secrecy::{ExposeSecret, SecretString};
    use serde_json::{Value, json};

    use uuid::Uuid;

    use super::{Audience, InvalidToken, Session, Tokens};
    use crate::clock::Timestamp;
    use crate::ids::SessionId;

    const NOW: Timestamp = Timestamp(1_790_000_000_123);
    const SECONDS: i64 = 1_790_000_000;
    const SESSION: Session = Session {
        id: SessionId(Uuid::from_u128(0x0190_0000_0000_4000_8000_0000_0000_00ab)),
        subject: 42,
        version: 7,
        issued_at: NOW,
    };
    const AUDIENCES: [Audience; 3] = [Audience::User, Audience::Staff, Audience::Admin];

    fn tokens_of(secret: &str) -> Tokens {
        Tokens::new(&SecretString::from(secret), Duration::from_mins(30))
    }

    fn tokens() -> Tokens {
        tokens_of("a secret of at least 32 characters, we hope")
    }

    fn issued(tokens: &Tokens, audience: Audience) -> String {
        tokens.issue(audience, &SESSION).unwrap().token.expose_secret().to_owned()
    }

    fn claims() -> Value {
        json!({
            "iss": "tollgate", "aud": "user", "sub": "42", "ver": 7,
            "iat": SECONDS, "nbf": SECONDS, "exp": SECONDS + 1800, "jti": "a",
            "sid": SESSION.id.to_string(),
        })
    }

    fn claims_with(name: &str, value: Value) -> String {
        let mut claims = claims();
        claims[name] = value;
        claims.to_string()
    }

    fn claims_without(name: &str) -> String {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        claims.to_string()
    }

    /// A token of these texts, signed rightly by `key` with `algorithm`.
    fn signed(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
        format!("{message}.{signature}")
    }

    /// A token with these claims for users, in every other respect as we sign it.
    fn ours(tokens: &Tokens, claims: &str) -> String {
        signed(&header(tokens), claims, &tokens.user.signing, Algorithm::HS256)
    }

    fn header(tokens: &Tokens) -> String {
        serde_json::to_string(&tokens.user.header).unwrap()
    }

    fn refused(tokens: &Tokens, name: &str, token: &str) {
        for audience in AUDIENCES {
            let seen = tokens.verify(audience, token, NOW);
            assert!(seen.is_err(), "{name}, shown to {audience}: {seen:?}\n{token}");
        }
    }

    #[test]
    fn a_session_is_recognised_by_its_audience_alone() {
        let tokens = tokens();
        for audience in AUDIENCES {
            let token = issued(&tokens, audience);
            let session = Session { issued_at: Timestamp(SECONDS * 1000), ..SESSION };
            assert_eq!(tokens.verify(audience, &token, NOW), Ok(session));
            for other in AUDIENCES.into_iter().filter(|other| *other != audience) {
                assert_eq!(tokens.verify(other, &token, NOW), Err(InvalidToken::Foreign));
            }
        }
    }

    #[test]
    fn a_session_survives_a_restart_but_not_another_secret() {
        let token = issued(&tokens(), Audience::Admin);
        assert!(tokens().verify(Audience::Admin, &token, NOW).is_ok());
        let other = tokens_of("another secret of at least 32 characters");
        assert_eq!(other.verify(Audience::Admin, &token, NOW), Err(InvalidToken::Foreign));
    }

    #[test]
    fn a_session_lasts_from_its_beginning_to_its_end_give_or_take_five_seconds() {
        let tokens = tokens();
        let issued = tokens.issue(Audience::User, &SESSION).unwrap();
        assert_eq!(issued.expires_in, Duration::from_mins(30));
        let at = |seconds: i64| {
            let now = Timestamp((SECONDS + seconds) * 1000);
            tokens.verify(Audience::User, issued.token.expose_secret(), now).map(|_| ())
        };
        assert_eq!(at(-6), Err(InvalidToken::Early));
        assert_eq!(at(-5), Ok(()));
        assert_eq!(at(1804), Ok(()));
        assert_eq!(at(1805), Err(InvalidToken::Expired));
        assert_eq!(at(i64::MAX / 1000 - SECONDS), Err(InvalidToken::Expired));
        assert_eq!(at(i64::MIN / 1000), Err(InvalidToken::Early));
    }

    #[test]
    fn two_sessions_of_one_subject_are_two_tokens() {
        let tokens = tokens();
        assert_ne!(issued(&tokens, Audience::User), issued(&tokens, Audience::User));
    }

    #[test]
    fn the_forger_of_these_tests_can_make_a_good_token() {
        let tokens = tokens();
        assert!(tokens.verify(Audience::User, &ours(&tokens, &claims().to_string()), NOW).is_ok());
    }

    #[test]
    fn no_claim_may_be_missing_wrong_or_added() {
        let tokens = tokens();
        for name in ["iss", "aud", "sub", "ver", "iat", "nbf", "exp", "jti", "sid"] {
            refused(&tokens, &format!("no {name}"), &ours(&tokens, &claims_without(name)));
            refused(&tokens, &format!("null {name}"), &ours(&tokens, &claims_with(name, Value::Null)));
            refused(&tokens, &format!("{name} as a list"), &ours(&tokens, &claims_with(name, json!([1]))));
            let twice = claims().to_string().replacen('{', &format!("{{{:?}:{},", name, claims()[name]), 1);
            refused(&tokens, &format!("{name} twice"), &ours(&tokens, &twice));
        }
        let wrong = [
            ("iss", json!("Tollgate")),
            ("iss", json!("")),
            ("iss", json!(["tollgate"])),
            ("aud", json!("staff")),
            ("aud", json!("admin")),
            ("aud", json!("User")),
            ("aud", json!(["user"])),
            ("aud", json!(["user", "admin"])),
            ("aud", json!("")),
            ("sub", json!(42)),
            ("sub", json!("alice")),
            ("sub", json!("")),
            ("sub", json!("042")),
            ("sub", json!("+42")),
            ("sub", json!(" 42")),
            ("sub", json!("42.0")),
            ("sub", json!("0x2a")),
            ("sub", json!("9223372036854775808")),
            ("sub", json!("٤٢")),
            ("ver", json!("7")),
            ("ver", json!(7.0)),
            ("ver", json!(true)),
            ("exp", json!((SECONDS + 1800).to_string())),
            ("exp", json!("9999999999")),
            ("exp", json!(1e12)),
            ("exp", json!(SECONDS - 5)),
            ("exp", json!(0)),
            ("exp", json!(-1)),
            ("exp", json!(u64::MAX)),
            ("exp", json!(true)),
            ("exp", json!({})),
            ("iat", json!(SECONDS.to_string())),
            ("iat", json!(SECONDS + 6)),
            ("iat", json!(i64::MAX)),
            ("iat", json!(i64::MIN)),
            ("nbf", json!(SECONDS.to_string())),
            ("nbf", json!(SECONDS + 6)),
            ("nbf", json!(i64::MAX)),
            ("jti", json!(1)),
            ("sid", json!("")),
            ("sid", json!("a")),
            ("sid", json!(SESSION.id.0.hyphenated().to_string())),
            ("sid", json!(SESSION.id.to_string().to_uppercase())),
            ("role", json!("admin")),
            ("level", json!("advanced")),
        ];
        for (name, value) in wrong {
            refused(&tokens, &format!("{name} {value}"), &ours(&tokens, &claims_with(name, value)));
        }
    }

    #[test]
    fn what_has_no_claims_is_refused() {
        let tokens = tokens();
        for rubbish in ["", "null", "[]", "42", "\"\"", "{}", "{", &format!("{}x", claims())] {
            refused(&tokens, rubbish, &ours(&tokens, rubbish));
        }
    }

    #[test]
    fn no_header_but_ours_is_read_even_where_the_signature_is_right() {
        let tokens = tokens();
        let kid = tokens.user.header.kid.clone().unwrap();
        let admin_kid = tokens.admin.header.kid.clone().unwrap();
        let headers = [
            json!({"typ": "JWT", "alg": "none", "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": "None", "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": "NONE", "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": "nOnE", "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": "", "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": null, "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": ["HS256"], "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": "hs256", "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": "HS384", "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": "HS512", "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": "RS256", "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": "ES256", "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": "PS256", "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": "EdDSA", "kid": kid}).to_string(),
            json!({"typ": "JWT", "kid": kid}).to_string(),
            json!({"typ": "JWT", "alg": "HS256"}).to_string(),
            json!({"typ": "JWT", "alg": "HS256", "kid": ""}).to_string(),
            json!({"typ": "JWT", "alg": "HS256", "kid": null}).to_string(),
            json!({"typ": "JWT", "alg": "HS256", "kid": "../../../dev/null"}).to_string(),
            json!({"typ": "JWT", "alg": "HS256", "kid": "' OR 1=1 --"}).to_string(),
            json!({"typ": "JWT", "alg": "HS256", "kid": admin_kid}).to_string(),
            json!({"typ": "JWT", "alg": "HS256", "kid": kid, "jku": "https://evil.example"}).to_string(),
            json!({"typ": "JWT", "alg": "HS256", "kid": kid, "x5u": "https://evil.example"}).to_string(),
            json!({"typ": "JWT", "alg": "HS256", "kid": kid, "crit": ["b64"], "b64": false}).to_string(),
            json!({"typ": "JWT", "alg": "HS256", "kid": kid, "zip": "DEF"}).to_string(),
            json!({"typ": "JWT", "alg": "HS256", "kid": kid,
                "jwk": {"kty": "oct", "k": URL_SAFE_NO_PAD.encode("forger")}})
            .to_string(),
            json!({"typ": "JOSE", "alg": "HS256", "kid": kid}).to_string(),
            format!(r#"{{"typ":"JWT","alg":"none","alg":"HS256","kid":"{kid}"}}"#),
            format!(r#"{{"typ":"JWT","alg":"HS256","alg":"none","kid":"{kid}"}}"#),
            format!(r#"{{"typ":"JWT","alg":"HS256","kid":"x","kid":"{kid}"}}"#),
            format!(r#"{{"alg":"HS256","typ":"JWT","kid":"{kid}"}}"#),
            format!(r#"{{"typ":"JWT","alg":"HS256","kid":"{kid}" }}"#),
            format!("{} ", header(&tokens)),
            "{}".to_owned(),
            "null".to_owned(),
            String::new(),
        ];
        for header in headers {
            let claims = claims().to_string();
            let token = signed(&header, &claims, &tokens.user.signing, Algorithm::HS256);
            refused(&tokens, &header, &token);
            let unsigned = token.rsplit_once('.').unwrap().0;
            refused(&tokens, &header, &format!("{unsigned}."));
            refused(&tokens, &header, unsigned);
        }
    }

    #[test]
    fn no_other_key_signs() {
        let tokens = tokens();
        let header = header(&tokens);
        let claims = claims().to_string();
        let foreign = tokens_of("another secret of at least 32 characters");
        let keys = [
            EncodingKey::from_secret(b""),
            EncodingKey::from_secret(&[0; 32]),
            EncodingKey::from_secret(b"secret"),
            EncodingKey::from_secret(b"a secret of at least 32 characters, we hope"),
            EncodingKey::from_secret(header.as_bytes()),
            foreign.user.signing.clone(),
            tokens.staff.signing.clone(),
            tokens.admin.signing.clone(),
        ];
        for key in keys {
            refused(&tokens, "another key", &signed(&header, &claims, &key, Algorithm::HS256));
        }
        for algorithm in [Algorithm::HS384, Algorithm::HS512] {
            let token = signed(&header, &claims, &tokens.user.signing, algorithm);
            refused(&tokens, "another algorithm behind our header", &token);
        }
        // The admins' key id on the users' signature, and the other way round.
        let admin = serde_json::to_string(&tokens.admin.header).unwrap();
        refused(&tokens, "mixed", &signed(&admin, &claims, &tokens.user.signing, Algorithm::HS256));
        let aud = claims_with("aud", json!("admin"));
        refused(&tokens, "mixed", &signed(&admin, &aud, &tokens.user.signing, Algorithm::HS256));
        refused(&tokens, "mixed", &signed(&admin, &claims, &tokens.admin.signing, Algorithm::HS256));
    }

    #[test]
    fn every_changed_cut_or_extended_token_is_refused() {
        let tokens = tokens();
        let token = issued(&tokens, Audience::User);
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        for at in 0..token.len() {
            refused(&tokens, "cut", &token[..at]);
            refused(&tokens, "cut in front", &token[at + 1..]);
            let mut changed = token.as_bytes().to_vec();
            for bit in 0..6 {
                let Some(value) = alphabet.iter().position(|letter| *letter == token.as_bytes()[at]) else {
                    break;
                };
                changed[at] = alphabet[value ^ (1 << bit)];
                refused(&tokens, "bit flipped", std::str::from_utf8(&changed).unwrap());
            }
            changed[at] = b'.';
            if changed != token.as_bytes() {
                refused(&tokens, "a dot", std::str::from_utf8(&changed).unwrap());
            }
        }
        let parts: Vec<&str> = token.split('.').collect();
        let padded = URL_SAFE.encode(URL_SAFE_NO_PAD.decode(parts[2]).unwrap());
        let shapes = [
            String::new(),
            ".".to_owned(),
            "..".to_owned(),
            "...".to_owned(),
            format!("{token}."),
            format!(".{token}"),
            format!("{token}.{}", parts[2]),
            format!("{}.{token}", parts[0]),
            format!("{}.{}.{}", parts[1], parts[0], parts[2]),
            format!("{}..{}", parts[0], parts[2]),
            format!("{}.{}.{padded}", parts[0], parts[1]),
            format!("{}.{}=.{}", parts[0], parts[1], parts[2]),
            format!("{}.{}.{}", parts[0], parts[1], parts[2].to_lowercase()),
            format!("{}.{}.AA", parts[0], parts[1]),
            format!("{}.{}.{}AAAA", parts[0], parts[1], parts[2]),
            format!(" {token}"),
            format!("{token} "),
            format!("{token}\n"),
            format!("Bearer {token}"),
            format!("{token}\0"),
            format!("{token}é"),
            "pe-0123456789abcdefghijABCDEFGHIJ01".to_owned(),
        ];
        for shape in shapes {
            refused(&tokens, "another shape", &shape);
        }
    }

    #[test]
    fn a_token_beyond_4_kib_is_not_looked_at() {
        let tokens = tokens();
        let long = ours(&tokens, &claims_with("jti", json!("x".repeat(4096))));
        assert_eq!(tokens.verify(Audience::User, &long, NOW), Err(InvalidToken::Malformed));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let tokens = tokens();
        let issued = tokens.issue(Audience::User, &SESSION).unwrap();
        let printed = format!("{tokens:?} {issued:?}");
        assert!(!printed.contains(issued.token.expose_secret()), "{printed}");
        assert!(printed.starts_with("Tokens { ttl: 1800s, .. }"), "{printed}");
    }
}
