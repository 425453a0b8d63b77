//! What people and applications sign in with: keys of users' tokens, and changing them without signing anybody out; API
//! keys that are rotated, revoked, and tell when they were last used.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cli::{arg, run};
use crate::support::http::{Answer, Ask};
use crate::support::server::{Server, Setup, tidings};
use crate::support::{DEADLINE, token};

/// A key that signs users' tokens, as an application keeps it.
struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    /// What the server is given: a secret, or the public half.
    file: PathBuf,
}

fn openssl(args: &[&str]) {
    let said = Command::new("openssl").args(args).output().expect("openssl is installed");
    assert!(said.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&said.stderr));
}

fn closed(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("it is ours");
}

impl Signer {
    /// A pair, made as `docs/` tells operators to.
    fn pair(dir: &Path, algorithm: Algorithm, name: &str) -> Self {
        let (private, file) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.pem")));
        let kind: &[&str] = match algorithm {
            Algorithm::ES256 => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            Algorithm::RS256 => &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
            _ => &["-algorithm", "ED25519"],
        };
        openssl(&[&["genpkey", "-out", arg(&private)], kind].concat());
        openssl(&["pkey", "-in", arg(&private), "-pubout", "-out", arg(&file)]);
        let pem = std::fs::read(private).expect("openssl has written it");
        let key = match algorithm {
            Algorithm::ES256 => EncodingKey::from_ec_pem(&pem),
            Algorithm::RS256 => EncodingKey::from_rsa_pem(&pem),
            _ => EncodingKey::from_ed_pem(&pem),
        };
        Self { algorithm, key: key.expect("a private key"), file }
    }

    fn secret(dir: &Path, name: &str) -> Self {
        let (file, secret) = (dir.join(name), format!("{name}-0123456789-0123456789-0123456789"));
        std::fs::write(&file, format!("{secret}\n")).expect("it can be written");
        closed(&file, 0o600);
        Self { algorithm: Algorithm::HS256, key: EncodingKey::from_secret(secret.as_bytes()), file }
    }

    fn token(&self, kid: Option<&str>, user: &str) -> String {
        signed(self.algorithm, &self.key, kid, user)
    }

    /// The setting that names it.
    fn setting(&self, kid: &str) -> String {
        format!("{:?} {kid} {}", self.algorithm, self.file.display())
    }
}

fn signed(algorithm: Algorithm, key: &EncodingKey, kid: Option<&str>, user: &str) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    let claims = json!({ "sub": user, "exp": token::now() + 600, "iat": token::now() });
    jsonwebtoken::encode(&header, &claims, key).expect("claims are JSON")
}

/// A server that takes these keys besides its own secret.
fn taking(settings: &[String]) -> Setup {
    Setup::serve().env("TIDINGS_AUTH_JWT_KEYS", &settings.join(","))
}

fn inbox(server: &Server, token: &str) -> Answer {
    server.send(&Ask::get("/v1/inbox").bearer(token))
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn tokens_of_four_algorithms_are_taken_each_by_its_own_key_and_no_other() {
    let dir = folder();
    let signers = [
        ("ec", Signer::pair(dir.path(), Algorithm::ES256, "ec")),
        ("rsa", Signer::pair(dir.path(), Algorithm::RS256, "rsa")),
        ("ed", Signer::pair(dir.path(), Algorithm::EdDSA, "ed")),
        ("hmac", Signer::secret(dir.path(), "hmac")),
    ];
    let other = Signer::pair(dir.path(), Algorithm::ES256, "other");
    let settings: Vec<_> = signers.iter().map(|(kid, signer)| signer.setting(kid)).collect();
    let server = taking(&settings).start();
    for (kid, signer) in &signers {
        inbox(&server, &signer.token(Some(kid), "alice")).expect(200);
        // The name is looked up exactly, and no key answers for another's name or for none.
        for foreign in signers.iter().map(|(foreign, _)| *foreign).filter(|foreign| foreign != kid) {
            inbox(&server, &signer.token(Some(foreign), "alice")).problem(401, "bad-credential");
        }
        for unknown in [None, Some(""), Some("ec "), Some("EC"), Some("/etc/passwd"), Some("-"), Some("ec,rsa")] {
            inbox(&server, &signer.token(unknown, "alice")).problem(401, "bad-credential");
        }
    }
    inbox(&server, &other.token(Some("ec"), "alice")).problem(401, "bad-credential");
    // The server's own secret goes on.
    inbox(&server, &server.token("alice")).expect(200);
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let dir = folder();
    let signers = [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA]
        .map(|algorithm| Signer::pair(dir.path(), algorithm, &format!("{algorithm:?}")));
    let settings: Vec<_> = signers.iter().map(|signer| signer.setting(&format!("{:?}", signer.algorithm))).collect();
    let unnamed = [signers[0].setting("-")];
    let server = taking(&[&settings[..], &unnamed].concat()).start();
    for signer in &signers {
        let pem = std::fs::read_to_string(&signer.file).expect("the public half");
        for secret in [pem.as_str(), pem.trim_end(), &pem.replace('\n', "")] {
            let key = EncodingKey::from_secret(secret.as_bytes());
            for kid in [Some(format!("{:?}", signer.algorithm)), None] {
                let forged = signed(Algorithm::HS256, &key, kid.as_deref(), "alice");
                inbox(&server, &forged).problem(401, "bad-credential");
            }
        }
    }
    // Nor does a header without a signature choose.
    let unsigned = "eyJhbGciOiJub25lIiwia2lkIjoiRVMyNTYifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.";
    inbox(&server, unsigned).problem(401, "bad-credential");
    inbox(&server, &signers[0].token(None, "alice")).expect(200);
}

#[test]
fn two_secrets_without_a_name_are_both_taken() {
    let dir = folder();
    let (old, new) = (Signer::secret(dir.path(), "old"), Signer::secret(dir.path(), "new"));
    let server = taking(&[old.setting("-"), new.setting("-")]).start();
    for signer in [&old, &new] {
        inbox(&server, &signer.token(None, "alice")).expect(200);
        inbox(&server, &signer.token(Some("x"), "alice")).problem(401, "bad-credential");
    }
    inbox(&server, &server.token("alice")).expect(200);
}

#[test]
fn keys_of_tokens_change_without_signing_anybody_out_before_the_old_one_goes() {
    let dir = folder();
    let (old, new) =
        (Signer::pair(dir.path(), Algorithm::ES256, "old"), Signer::pair(dir.path(), Algorithm::EdDSA, "new"));
    let settings = dir.path().join("tidings.toml");
    let write = |keys: &[String]| std::fs::write(&settings, format!("[auth]\njwt_keys = {keys:?}\n")).expect("written");
    let (named_old, named_new) = (old.setting("old"), new.setting("new"));
    write(std::slice::from_ref(&named_old));
    let server = Setup::serve().config(&settings).start();
    let (before, after) = (old.token(Some("old"), "alice"), new.token(Some("new"), "alice"));
    let mut stream = crate::support::sse::Sse::open(server.place(), Ask::get("/v1/stream").bearer(&before));
    stream.expect("hello");
    inbox(&server, &after).problem(401, "bad-credential");
    let reload = || run(&["reload", "--data", arg(server.data())], "").well();
    write(&[named_old, named_new.clone()]);
    reload();
    inbox(&server, &before).expect(200);
    inbox(&server, &after).expect(200);
    // A key that comes disturbs nobody.
    server.notify("alice", "still here");
    assert_eq!(stream.until("notification").title(), "still here");
    write(&[named_new]);
    reload();
    inbox(&server, &before).problem(401, "bad-credential");
    inbox(&server, &after).expect(200);
    // One that goes may have been stolen: whoever streams is judged anew.
    stream.bye("rotate");
}

#[test]
fn a_token_from_the_future_is_refused_since_it_would_outlive_a_revocation() {
    let server = Server::start();
    let at = |iat: i64| server.token_for(&json!({ "sub": "alice", "exp": token::now() + 7200, "iat": iat }));
    inbox(&server, &at(token::now() + 30)).expect(200);
    inbox(&server, &at(token::now() + 3600)).problem(401, "bad-credential");
    let made = run(&["token", "--data", arg(server.data()), "--user", "alice"], "").well();
    let claims = made.out.split('.').nth(1).expect("a JWT").to_owned();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).expect("base64");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    assert!((token::now() - claims["iat"].as_i64().expect("iat")).abs() < 60, "{claims}");
}

/// Starts a server that must not start; what it said.
fn refused(dir: &Path, env: &[(&str, &str)]) -> String {
    let mut serve = tidings();
    serve.args(["serve", "--listen", "127.0.0.1:0", "--data", arg(&dir.join("state"))]).envs(env.iter().copied());
    let mut child = serve.stderr(Stdio::piped()).spawn().expect("the binary is built");
    let deadline = Instant::now() + DEADLINE;
    while child.try_wait().expect("it is ours").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it serves with {env:?}: {:?}", child.wait_with_output());
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let said = child.wait_with_output().expect("it has ended");
    assert!(!said.status.success(), "{said:?}");
    String::from_utf8(said.stderr).expect("UTF-8")
}

#[test]
fn a_secret_that_others_can_read_is_refused_with_what_to_do() {
    let dir = folder();
    let signer = Signer::secret(dir.path(), "secret");
    closed(&signer.file, 0o644);
    let advice = format!("chmod 0600 {}", signer.file.display());
    for (name, value) in [
        ("TIDINGS_AUTH_JWT_KEYS", signer.setting("-")),
        ("TIDINGS_AUTH_JWT_SECRET_FILE", signer.file.display().to_string()),
    ] {
        let said = refused(dir.path(), &[(name, &value)]);
        assert!(said.contains(&advice) && said.contains("sign in as anybody"), "{said:?}");
    }
    // A public key is for everybody to read.
    let pair = Signer::pair(dir.path(), Algorithm::ES256, "pair");
    closed(&pair.file, 0o644);
    closed(&signer.file, 0o600);
    let server = taking(&[pair.setting("-"), signer.setting("-")]).start();
    inbox(&server, &pair.token(None, "alice")).expect(200);
}

#[test]
fn what_is_no_key_is_named_before_the_server_starts() {
    let dir = folder();
    let (ec, hmac) = (Signer::pair(dir.path(), Algorithm::ES256, "ec"), Signer::secret(dir.path(), "hmac"));
    let short = dir.path().join("short");
    std::fs::write(&short, "short").expect("written");
    closed(&short, 0o600);
    let cases = [
        (format!("RS256 a {}", ec.file.display()), "openssl pkey -pubout"),
        (format!("ES256 a {}", hmac.file.display()), "holds no public key"),
        (format!("ES256 a {}", dir.path().join("ec.key").display()), "openssl pkey -pubout"),
        (format!("HS256 a {}", short.display()), "5 bytes"),
        (format!("ES256 a {}", dir.path().join("nowhere").display()), "nowhere"),
        (format!("HS512 a {}", hmac.file.display()), "HS256, ES256, RS256 or EdDSA"),
        (format!("HS256 {}", hmac.file.display()), "jwt_keys"),
    ];
    for (setting, told) in cases {
        let said = refused(dir.path(), &[("TIDINGS_AUTH_JWT_KEYS", &setting)]);
        assert!(said.contains(told), "{setting}: no {told:?} in {said:?}");
    }
}

#[test]
fn a_public_key_that_was_named_as_a_secret_by_mistake_is_refused() {
    let dir = folder();
    let ec = Signer::pair(dir.path(), Algorithm::ES256, "ec");
    closed(&ec.file, 0o600);
    let setting = format!("HS256 a {}", ec.file.display());
    let said = refused(dir.path(), &[("TIDINGS_AUTH_JWT_KEYS", &setting)]);
    assert!(said.contains("ec.pem"), "{said:?}");
}

#[test]
fn systemd_hands_secrets_over_by_name() {
    let dir = folder();
    let (secret, pair) = (Signer::secret(dir.path(), "jwt"), Signer::pair(dir.path(), Algorithm::ES256, "web"));
    let handed = arg(dir.path()).to_owned();
    let setup = Setup::serve().env("TIDINGS_AUTH_JWT_SECRET_FILE", "credential:jwt");
    let setup = setup.env("TIDINGS_AUTH_JWT_KEYS", "ES256 web credential:web.pem");
    let server = setup.env("CREDENTIALS_DIRECTORY", &handed).start();
    inbox(&server, &secret.token(None, "alice")).expect(200);
    inbox(&server, &pair.token(Some("web"), "alice")).expect(200);
    assert!(!server.data().join("token.key").exists(), "no secret is made where one was handed over");

    let setting = ("TIDINGS_AUTH_JWT_SECRET_FILE", "credential:jwt");
    let without = refused(dir.path(), &[setting]);
    assert!(without.contains("LoadCredential=jwt:"), "{without:?}");
    let empty = folder();
    let missing = refused(dir.path(), &[setting, ("CREDENTIALS_DIRECTORY", arg(empty.path()))]);
    assert!(missing.contains("LoadCredential=jwt:"), "{missing:?}");
}

/// A new API key, by its id and its text.
fn api_key(server: &Server, scopes: &[&str]) -> (String, String) {
    let key = server.key(scopes);
    (key.split('_').nth(1).expect("tk_<id>_<secret>").to_owned(), key)
}

fn publish(server: &Server, key: &str) -> Answer {
    let ask = Ask::post("/v1/notifications").bearer(key).json(&json!({ "to": "user:alice", "title": "t" }));
    server.send(&ask)
}

/// What the list says of a key.
fn listed(server: &Server, id: &str) -> Value {
    let keys = server.operate(Ask::get("/v1/keys")).expect(200).json();
    let keys = keys["keys"].as_array().expect("a list").clone();
    keys.into_iter().find(|key| key["id"] == id).expect("every key is listed")
}

#[test]
fn a_rotated_key_is_taken_beside_the_new_one_until_its_grace_is_over() {
    let mut server = Server::start();
    let (id, old) = api_key(&server, &["publish"]);
    let rotate = |grace: &Value| Ask::post(&format!("/v1/keys/{id}/rotate")).json(&json!({ "grace": grace }));
    let made = server.operate(rotate(&json!("1h"))).expect(200).json();
    let new = made["key"].as_str().expect("the new key").to_owned();
    assert_eq!([&made["id"], &made["name"], &made["scopes"]], [&json!(id), &json!("test"), &json!(["publish"])]);
    let until: jiff::Timestamp = made["old_until"].as_str().and_then(|at| at.parse().ok()).expect("RFC 3339");
    assert!((3_590..=3_600).contains(&(until.as_second() - token::now())), "{made}");
    assert_ne!(old, new);
    publish(&server, &old).expect(201);
    publish(&server, &new).expect(201);
    publish(&server, &format!("{new}x")).problem(401, "bad-credential");
    server.kill();
    server.restart();
    publish(&server, &old).expect(201);
    let last = server.operate(rotate(&json!("0s"))).expect(200).json()["key"].as_str().expect("a key").to_owned();
    publish(&server, &last).expect(201);
    publish(&server, &new).problem(401, "expired");
    publish(&server, &old).problem(401, "bad-credential");
    server.restart();
    publish(&server, &new).problem(401, "expired");
    for bad in [json!("31d"), json!(-1), json!("soon")] {
        server.operate(rotate(&bad)).problem(422, "invalid");
    }
    let said = run(&["key", "rotate", &id, "--grace", "soon", "--data", arg(server.data())], "");
    assert_eq!(said.code, 64, "{said:?}");
    let said = run(&["key", "rotate", &id, "--grace", "10m", "--data", arg(server.data())], "").well();
    publish(&server, said.out.trim()).expect(201);
    publish(&server, &last).expect(201);
    assert!(listed(&server, &id)["key"].is_null());
    // The database has hashes, and of no secret more than that.
    let database = std::fs::read(server.data().join("tidings.db")).expect("the log");
    for key in [&old, &new, &last] {
        let secret = key.splitn(3, '_').nth(2).expect("a secret");
        assert!(!database.windows(secret.len()).any(|part| part == secret.as_bytes()));
    }
}

#[test]
fn a_key_tells_when_it_was_last_used() {
    let mut server = Server::start();
    let (id, key) = api_key(&server, &["publish"]);
    assert_eq!(listed(&server, &id)["last_used_at"], Value::Null);
    publish(&server, &format!("{key}x")).problem(401, "bad-credential");
    assert_eq!(listed(&server, &id)["last_used_at"], Value::Null, "somebody else's guess is no use");
    publish(&server, &key).expect(201);
    let used = listed(&server, &id)["last_used_at"].clone();
    let at: jiff::Timestamp = used.as_str().and_then(|at| at.parse().ok()).expect("RFC 3339");
    assert!((at.as_second() - token::now()).abs() < 60, "{used}");
    server.restart();
    assert_eq!(listed(&server, &id)["last_used_at"], used);
    let told = run(&["key", "list", "--data", arg(server.data())], "").well().out;
    assert!(told.contains("used "), "{told}");
}

#[test]
fn a_revoked_key_is_refused_as_revoked_and_does_not_come_back() {
    let mut server = Server::start();
    let (id, key) = api_key(&server, &["publish", "tickets"]);
    let rotation = || Ask::post(&format!("/v1/keys/{id}/rotate")).json(&json!({ "grace": "1h" }));
    let new = server.operate(rotation()).expect(200).json()["key"].as_str().expect("a key").to_owned();
    server.operate(Ask::delete(&format!("/v1/keys/{id}"))).expect(204);
    for restarted in [false, true] {
        for secret in [&key, &new] {
            publish(&server, secret).problem(401, "revoked");
        }
        publish(&server, &format!("{key}x")).problem(401, "bad-credential");
        server.operate(rotation()).problem(404, "not-found");
        if !restarted {
            server.restart();
        }
    }
    assert!(listed(&server, &id)["revoked_at"].is_string());
}
