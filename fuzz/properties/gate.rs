//! A broker to knock at, with the few credentials that are good there: a token, a ticket and an API key; and with one
//! template. One for each
//! thread, on a database of its own, with a clock that stands still.

use std::sync::{Arc, OnceLock};

use tempfile::TempDir;
use tidings::broker::{
    AuthError, Broker, BrokerError, Config, Credentials, JwtConfig, OperatorSecret, Registered, TokenClaims,
    VerifyingKey, mint_token,
};
use tidings::clock::Clock;
use tidings::lifecycle::Lifecycle;
use tidings::metrics::Metrics;
use tidings::model::{Identity, Scope, Template, TemplateName, Timestamp, UserId};
use tidings::wire::manage::KeyBody;
use tidings::wire::template::{Preview, PreviewBody};
use tokio::runtime::Runtime;

/// What it is at the gate.
pub const NOW: Timestamp = Timestamp::from_seconds(1_777_626_000);
/// What signs good tokens that name no key.
pub const SECRET: &[u8] = b"the secret of the gate, 32 bytes";
/// What signs good tokens of the key `named`.
pub const NAMED_SECRET: &[u8] = b"another secret, for a named key.";
/// The public half of the key `public`, which signs no HS256 token although everybody has it.
pub const PUBLIC_KEY: &[u8] = b"-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEC6cGB0Ybwy2TDOttvmk72XdxebYM
2qRoKq7sa1ga9TYRmnoPA3ROxAojIj1ME4JQjuv1OT4jLEbg7fmAJPoEeg==
-----END PUBLIC KEY-----
";

const OPERATOR: &str = "the operator's secret of this run";

pub struct Gate {
    broker: Broker,
    /// A token of alice's.
    pub token: String,
    /// A ticket of alice's.
    pub ticket: String,
    /// A key that may do everything.
    pub key: String,
    _folder: TempDir,
}

thread_local! {
    static GATE: Gate = Gate::open();
}

impl Gate {
    /// Goes to this thread's gate.
    pub fn with<T>(knock: impl FnOnce(&Self) -> T) -> T {
        GATE.with(knock)
    }

    fn open() -> Self {
        let named = VerifyingKey::new("HS256", Some("named".to_owned()), NAMED_SECRET).expect("a secret");
        let public = VerifyingKey::new("ES256", Some("public".to_owned()), PUBLIC_KEY).expect("a public key");
        let jwt = JwtConfig { secret: SECRET.to_vec(), keys: vec![named, public], ..JwtConfig::default() };
        let claims = TokenClaims {
            user: UserId::new("alice").expect("a user"),
            expires: Timestamp::from_seconds(NOW.as_seconds() + 60),
            issued: NOW,
            topics: None,
            scope: None,
        };
        let token = mint_token(&jwt, &claims);
        let operator_secret = Some(OperatorSecret(OPERATOR.to_owned()));
        let config = Config { jwt, operator_secret, ..Config::default() };
        let folder = tempfile::tempdir().expect("a folder for the database");
        let (broker, ticket, key) = runtime().block_on(async {
            let metrics = Arc::new(Metrics::default());
            let broker = Broker::open(folder.path(), config, Clock::manual(NOW), metrics, &Lifecycle::default())
                .await
                .expect("a new database opens");
            let ticket = broker.create_ticket(&Identity::Operator, Some(claims.user)).await.expect("the operator may");
            let body = KeyBody { name: "key".to_owned(), scopes: vec![Scope::Admin] };
            let (_, key) = broker.create_key(&Identity::Operator, body).await.expect("the operator may");
            (broker, ticket.ticket, key)
        });
        Self { broker, token, ticket, key, _folder: folder }
    }

    /// Who this is, by what an edge found.
    pub fn knock(&self, credentials: Credentials<'_>) -> Result<Identity, AuthError> {
        runtime().block_on(self.broker.authenticate(credentials))
    }

    /// Registers a version of the one template that is here; its number.
    pub fn register(&self, template: Template) -> Result<(u32, Registered), BrokerError> {
        let name = TemplateName::new("any").expect("a name");
        let put = self.broker.put_template(&Identity::Operator, &name, template);
        runtime().block_on(put).map(|(info, registered)| (info.version, registered))
    }

    /// What comes out of the one template.
    pub fn preview(&self, preview: PreviewBody) -> Result<Preview, BrokerError> {
        let name = TemplateName::new("any").expect("a name");
        runtime().block_on(self.broker.preview_template(&Identity::Operator, &name, preview))
    }

    /// Everything that is good here as a bearer's.
    pub fn is_ours(&self, text: &str) -> bool {
        text == self.token || text == self.key || text == OPERATOR
    }
}

/// Never ended: a thread that ends has no runtime to end in.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads can be made")
    })
}
