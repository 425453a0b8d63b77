//! Users' tokens: JWT (RFC 7519) with HS256, ES256, RS256 or `EdDSA`, minted by the embedding application, by who signs
//! people in for it, or by `tidings token`.
//!
//! **Invariant**: the algorithm is fixed by our key, never by the token's header, which only chooses among our keys: by
//! `kid` the one of that name, without it those that have none. No address from a token is ever fetched. Claims are looked at only after the
//! signature was verified; `sub` and `exp` must be there with the right types.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::AuthError;
use super::keys::sha256;
use crate::model::{Credential, Timestamp, TopicPattern, UserId, UserIdentity};

/// Patterns in one token at most.
const MAX_TOPICS: usize = 100;
/// How far the clock of whoever minted a token may be ahead of ours.
const CLOCK_SKEW: Duration = Duration::from_mins(1);
/// Bytes of a token at most; a larger one is not looked at.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// What PEM says of a key that is not to be here.
const PRIVATE: &[u8] = b"PRIVATE KEY-----";

/// How users' tokens are checked.
#[derive(Clone, Default)]
pub struct JwtConfig {
    /// The server's own secret, of HS256 and without a name: what `tidings token` and most applications sign with.
    pub secret: Vec<u8>,
    /// Further keys, so that they can be changed without signing anybody out.
    pub keys: Vec<VerifyingKey>,
    /// `aud` must name this, where it is set.
    pub audience: Option<String>,
    /// `iss` must be this, where it is set.
    pub issuer: Option<String>,
}

impl JwtConfig {
    /// Whether what was good by these settings may not be any more by the newer ones.
    pub(super) fn narrows(&self, newer: &Self) -> bool {
        let has = |known: &VerifyingKey| {
            let same = |key: &VerifyingKey| {
                (&key.name, key.algorithm, key.print) == (&known.name, known.algorithm, known.print)
            };
            newer.keys.iter().any(same)
        };
        self.secret != newer.secret
            || self.audience != newer.audience
            || self.issuer != newer.issuer
            || !self.keys.iter().all(has)
    }
}

impl fmt::Debug for JwtConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtConfig")
            .field("secret", &"…")
            .field("keys", &self.keys)
            .field("audience", &self.audience)
            .field("issuer", &self.issuer)
            .finish()
    }
}

/// A key that signs users' tokens: a secret, or the public half of a pair.
#[derive(Clone)]
pub struct VerifyingKey {
    name: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// SHA-256 of what it was made of, to tell it from another.
    print: [u8; 32],
}

/// A verifying key as settings name it; the server reads the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// One of [`VerifyingKey::ALGORITHMS`].
    pub algorithm: String,
    /// The `kid` of its tokens.
    pub name: Option<String>,
    pub path: PathBuf,
}

impl VerifyingKey {
    /// The algorithms, as they are written.
    pub const ALGORITHMS: [&str; 4] = ["HS256", "ES256", "RS256", "EdDSA"];

    /// `name` is the `kid` of its tokens; `bytes` the secret, or a public key in PEM.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn new(algorithm: &str, name: Option<String>, bytes: &[u8]) -> Result<Self, &'static str> {
        if !Self::is_secret(algorithm) && bytes.windows(PRIVATE.len()).any(|window| window == PRIVATE) {
            return Err(
                "is a private key, which stays where tokens are signed; `openssl pkey -pubout` writes its public half",
            );
        }
        let (algorithm, key) = match algorithm {
            "HS256" => (Algorithm::HS256, Ok(DecodingKey::from_secret(bytes))),
            "ES256" => (Algorithm::ES256, DecodingKey::from_ec_pem(bytes)),
            "RS256" => (Algorithm::RS256, DecodingKey::from_rsa_pem(bytes)),
            "EdDSA" => (Algorithm::EdDSA, DecodingKey::from_ed_pem(bytes)),
            _ => return Err("is none of HS256, ES256, RS256 and EdDSA"),
        };
        let key = key.map_err(|_| "holds no public key of that kind in PEM; `openssl pkey -pubout` writes one")?;
        Ok(Self { name, algorithm, key, print: sha256(bytes) })
    }

    /// Whether its tokens are signed with a secret that nobody else may read.
    pub fn is_secret(algorithm: &str) -> bool {
        algorithm == "HS256"
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyingKey")
            .field("name", &self.name)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

/// What a token says.
#[derive(Clone, Debug)]
pub struct TokenClaims {
    pub user: UserId,
    pub expires: Timestamp,
    /// When it was made.
    pub issued: Timestamp,
    /// Topics it may see; `None` is all that the user follows.
    pub topics: Option<Vec<TopicPattern>>,
    /// Scopes, separated by spaces (RFC 8693). `publish` lets the form publish.
    pub scope: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
    iat: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aud: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topics: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

/// What is read of a token that someone else minted; `aud` may be a list there, and is checked by the library.
#[derive(Deserialize)]
struct ForeignClaims {
    sub: String,
    /// `NumericDate` may have a fraction (RFC 7519, 2).
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    iat: Option<f64>,
    #[serde(default)]
    topics: Option<Vec<String>>,
    #[serde(default)]
    scope: Option<String>,
}

/// Makes a token that [`JwtConfig`] accepts.
pub fn mint_token(config: &JwtConfig, claims: &TokenClaims) -> String {
    let claims = Claims {
        sub: claims.user.as_str().to_owned(),
        exp: claims.expires.as_seconds(),
        iat: claims.issued.as_seconds(),
        aud: config.audience.clone(),
        iss: config.issuer.clone(),
        topics: claims.topics.as_ref().map(|topics| topics.iter().map(|t| t.as_str().to_owned()).collect()),
        scope: claims.scope.clone(),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&config.secret))
        .expect("claims of strings and numbers serialise, and HMAC takes any secret")
}

/// Checks a token.
pub(super) fn verify(config: &JwtConfig, token: &str, now: Timestamp) -> Result<UserIdentity, AuthError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(AuthError::Invalid);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Invalid)?;
    // An extension that must be understood, and none is (RFC 7515, 4.1.11).
    if header.crit.is_some() {
        return Err(AuthError::Invalid);
    }
    let own = header.kid.is_none() && header.alg == Algorithm::HS256 && !config.secret.is_empty();
    let own = own.then(|| (Algorithm::HS256, DecodingKey::from_secret(&config.secret)));
    let named = config.keys.iter().filter(|key| key.name == header.kid && key.algorithm == header.alg);
    let claims = own
        .iter()
        .map(|(algorithm, key)| (*algorithm, key))
        .chain(named.map(|key| (key.algorithm, &key.key)))
        .find_map(|(algorithm, key)| claims_by(config, token, algorithm, key))
        .ok_or(AuthError::Invalid)?;
    let user = UserId::new(&claims.sub).map_err(|_| AuthError::Invalid)?;
    let topics = claims.topics.as_deref().map(patterns).transpose()?;
    let expires = numeric_date(claims.exp)?;
    let issued = claims.iat.map(numeric_date).transpose()?;
    let begins = claims.nbf.map(numeric_date).transpose()?;
    // A token from the future would outlive a revocation.
    if begins.max(issued).is_some_and(|moment| moment > now.after(CLOCK_SKEW)) {
        return Err(AuthError::Invalid);
    }
    if expires <= now {
        return Err(AuthError::Expired);
    }
    Ok(UserIdentity {
        user,
        credential: Credential::Bearer,
        topics,
        publishes: claims.scope.is_some_and(|scope| scope.split(' ').any(|word| word == "publish")),
        expires: Some(expires),
        issued,
    })
}

/// The claims of a token that one key has signed, and that is meant for us.
fn claims_by(config: &JwtConfig, token: &str, algorithm: Algorithm, key: &DecodingKey) -> Option<ForeignClaims> {
    let mut validation = Validation::new(algorithm);
    // The clock is ours, so that one clock decides.
    validation.validate_exp = false;
    validation.set_required_spec_claims(&["exp", "sub"]);
    validation.validate_aud = config.audience.is_some();
    if let Some(audience) = &config.audience {
        validation.set_audience(&[audience]);
        validation.required_spec_claims.insert("aud".to_owned());
    }
    if let Some(issuer) = &config.issuer {
        validation.set_issuer(&[issuer]);
        validation.required_spec_claims.insert("iss".to_owned());
    }
    jsonwebtoken::decode::<ForeignClaims>(token, key, &validation).ok().map(|token| token.claims)
}

/// A `NumericDate` in whole seconds, rounded down.
fn numeric_date(seconds: f64) -> Result<Timestamp, AuthError> {
    // Within what a double holds exactly; nobody's token lives for a hundred million years.
    const EXACT: f64 = 9_007_199_254_740_991.0;
    if !(0.0..=EXACT).contains(&seconds) {
        return Err(AuthError::Invalid);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the range was checked, and the fraction is meant to go")]
    Ok(Timestamp::from_seconds(seconds as i64))
}

/// A pattern that can't be read must not widen or narrow what the token meant: the token is refused.
fn patterns(texts: &[String]) -> Result<Arc<[TopicPattern]>, AuthError> {
    if texts.len() > MAX_TOPICS {
        return Err(AuthError::Invalid);
    }
    texts.iter().map(|text| TopicPattern::new(text).ok_or(AuthError::Invalid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1_000_000);

    fn config() -> JwtConfig {
        JwtConfig { secret: vec![7; 32], ..JwtConfig::default() }
    }

    fn mint(config: &JwtConfig, claims: &serde_json::Value) -> String {
        let key = EncodingKey::from_secret(&config.secret);
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("encodes")
    }

    fn alice() -> TokenClaims {
        TokenClaims {
            user: UserId::new("alice").expect("a user"),
            expires: Timestamp::from_seconds(1_000_060),
            issued: NOW,
            topics: Some(vec![TopicPattern::new("ops/*").expect("a pattern")]),
            scope: Some("read publish".to_owned()),
        }
    }

    #[test]
    fn a_minted_token_says_what_it_was_given() {
        let identity = verify(&config(), &mint_token(&config(), &alice()), NOW).expect("is good");
        assert_eq!(identity.user.as_str(), "alice");
        assert!(identity.publishes);
        assert_eq!(identity.topics.map(|t| t.len()), Some(1));
    }

    #[test]
    fn a_token_that_was_good_has_run_out_and_others_never_were_good() {
        let token = mint_token(&config(), &alice());
        assert_eq!(verify(&config(), &token, Timestamp::from_seconds(1_000_060)), Err(AuthError::Expired));
        let foreign = mint_token(&JwtConfig { secret: vec![8; 32], ..config() }, &alice());
        assert_eq!(verify(&config(), &foreign, NOW), Err(AuthError::Invalid));
        // A forged token that has also run out is forged first.
        assert_eq!(verify(&config(), &foreign, Timestamp::from_seconds(2_000_000)), Err(AuthError::Invalid));
    }

    #[test]
    fn unsigned_and_oddly_typed_tokens_are_refused() {
        // {"alg":"none"} . {"sub":"alice","exp":9999999999} .
        let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.";
        assert_eq!(verify(&config(), unsigned, NOW), Err(AuthError::Invalid));
        for claims in [
            serde_json::json!({"sub": "alice"}),
            serde_json::json!({"exp": 2_000_000}),
            serde_json::json!({"sub": 7, "exp": 2_000_000}),
            serde_json::json!({"sub": "alice", "exp": "2000000"}),
            serde_json::json!({"sub": "a\nb", "exp": 2_000_000}),
            serde_json::json!({"sub": "alice", "exp": 2_000_000, "topics": "ops"}),
            serde_json::json!({"sub": "alice", "exp": 2_000_000, "topics": ["a*b"]}),
        ] {
            assert_eq!(verify(&config(), &mint(&config(), &claims), NOW), Err(AuthError::Invalid), "{claims}");
        }
        assert_eq!(verify(&config(), &"a".repeat(MAX_TOKEN_BYTES + 1), NOW), Err(AuthError::Invalid));
    }

    #[test]
    fn dates_may_have_fractions_and_a_token_may_not_be_used_before_its_time() {
        let with = |more: serde_json::Value| {
            let mut claims = serde_json::json!({"sub": "alice", "exp": 1_000_060.5});
            claims.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            verify(&config(), &mint(&config(), &claims), NOW)
        };
        let good = with(serde_json::json!({})).map(|identity| identity.expires);
        assert_eq!(good, Ok(Some(Timestamp::from_seconds(1_000_060))));
        assert!(with(serde_json::json!({"nbf": 1_000_030})).is_ok(), "clocks differ a little");
        for more in [
            serde_json::json!({"nbf": 1_000_100}),
            serde_json::json!({"nbf": "soon"}),
            serde_json::json!({"exp": -1}),
            serde_json::json!({"exp": 1e300}),
        ] {
            assert_eq!(with(more.clone()), Err(AuthError::Invalid), "{more}");
        }
        let header = Header { crit: Some(vec!["x".into()]), ..Header::new(Algorithm::HS256) };
        let key = EncodingKey::from_secret(&config().secret);
        let claims = serde_json::json!({"sub": "alice", "exp": 2_000_000});
        let critical = jsonwebtoken::encode(&header, &claims, &key).expect("encodes");
        assert_eq!(verify(&config(), &critical, NOW), Err(AuthError::Invalid));
    }

    #[test]
    fn audience_and_issuer_are_required_where_they_are_configured() {
        let config = JwtConfig { audience: Some("tidings".into()), issuer: Some("app".into()), ..config() };
        assert!(verify(&config, &mint_token(&config, &alice()), NOW).is_ok());
        for claims in [
            serde_json::json!({"sub": "a", "exp": 2_000_000}),
            serde_json::json!({"sub": "a", "exp": 2_000_000, "aud": "other", "iss": "app"}),
            serde_json::json!({"sub": "a", "exp": 2_000_000, "aud": "tidings", "iss": "other"}),
        ] {
            assert_eq!(verify(&config, &mint(&config, &claims), NOW), Err(AuthError::Invalid), "{claims}");
        }
        let listed = serde_json::json!({"sub": "a", "exp": 2_000_000, "aud": ["x", "tidings"], "iss": "app"});
        assert!(verify(&config, &mint(&config, &listed), NOW).is_ok());
    }
}
