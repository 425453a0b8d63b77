//! Settings from outside: which layer wins, what is told of a fault and where, and the commands that show and check
//! them.
//!
//! Every test names a settings file, so that none of the machine it runs on is read.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::cli::{Said, arg, run, run_with};
use crate::support::server::Setup;

/// A settings file `tidings.toml` with its drop-ins, in a directory of its own.
struct Settings(TempDir);

impl Settings {
    fn new(text: &str) -> Self {
        let this = Self(tempfile::tempdir().expect("a directory"));
        this.write("tidings.toml", text);
        this
    }

    fn drop_in(self, name: &str, text: &str) -> Self {
        fs::create_dir_all(self.path("tidings.toml.d")).expect("ours to make");
        self.write(&format!("tidings.toml.d/{name}"), text);
        self
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("ours to write");
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self) -> PathBuf {
        self.path("tidings.toml")
    }

    /// Runs a command that ends with the name of a settings file.
    fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, &[])
    }

    fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Said {
        run_with(&[args, &[arg(&self.file())]].concat(), "", env)
    }

    /// Runs a server that must not start, on a directory that is not there yet; what it says.
    fn serve(&self) -> Said {
        let data = self.path("state");
        let said = self.run(&["serve", "--listen", "127.0.0.1:0", "--data", arg(&data), "--config"]);
        assert!(said.code == 64 && said.out.is_empty() && !data.exists(), "{said:?}");
        said
    }

    /// Checks the settings, which must have faults; one a line.
    fn faults(&self) -> Vec<String> {
        let said = self.run(&["config", "check"]);
        let faults: Vec<_> = said.out.lines().map(str::to_owned).collect();
        let counted = if faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", faults.len()) };
        assert!(said.code == 64 && said.err.contains(&counted), "{said:?}");
        faults
    }
}

/// What `config show --json` has for a key: its value and where that came from.
fn shown(said: Said, key: &str) -> (Value, String) {
    let settings = said.well().json();
    let found = settings.as_array().expect("a list").iter().find(|setting| setting["key"] == key).cloned();
    let found = found.unwrap_or_else(|| panic!("no {key} in {settings}"));
    (found["value"].clone(), found["origin"].as_str().expect("a text").to_owned())
}

/// Keys and values of every setting, without where they came from.
fn values(file: &Path) -> Vec<(Value, Value)> {
    let settings = run(&["config", "show", "--all", "--json", "--config", arg(file)], "").well().json();
    let pair = |setting: &Value| (setting["key"].clone(), setting["value"].clone());
    settings.as_array().expect("a list").iter().map(pair).collect()
}

#[test]
fn a_slip_of_the_pen_is_told_with_its_line_and_what_was_meant() {
    let settings = Settings::new("data = \"x\"\n\n[http]\nlissten = \"127.0.0.1:0\"\n\n[steams]\nmax = 1\n");
    let file = settings.file();
    let told = [
        format!("{}:4: http.lissten is no setting; did you mean http.listen?", file.display()),
        format!("{}:6: [steams] is no section; did you mean [streams]?", file.display()),
    ];
    assert_eq!(settings.faults(), told);
    assert_eq!(settings.serve().err, format!("error: {}\n", told.join("\n")));
    let twice = Settings::new("[http]\nlisten = \"none\"\nlisten = \"127.0.0.1:0\"\n");
    let told = twice.faults();
    assert!(told.len() == 1 && told[0].contains("tidings.toml:3: this is not TOML: duplicate key"), "{told:?}");
}

#[test]
fn every_fault_of_every_layer_is_told_at_once_and_a_broken_drop_in_is_named() {
    let settings = Settings::new("[streams]\nheartbeat = \"1h\"\n")
        .drop_in("10-cut.toml", "[http]\nlisten = \n")
        .drop_in("20-good.toml", "[log]\nformat = \"json\"\n")
        .drop_in("30-wrong.toml", "[log]\nlevel = \"loud,,=\"\n")
        .drop_in("README", "not TOML, and nobody minds");
    fs::create_dir(settings.path("tidings.toml.d/40-odd.toml")).expect("ours to make");
    let said =
        settings.run_with(&["config", "check"], &[("TIDINGS_HTTP_LISSTEN", "x"), ("TIDINGS_USERS_UNKNOWN", "x")]);
    let starts = [
        "tidings.toml:2: streams.heartbeat must be ",
        "10-cut.toml:2: this is not TOML: ",
        "30-wrong.toml:2: log.level must be ",
        "40-odd.toml: this settings file can't be read: ",
        "environment variable TIDINGS_HTTP_LISSTEN is no setting; did you mean TIDINGS_HTTP_LISTEN?",
        "TIDINGS_USERS_UNKNOWN: users.unknown must be ",
    ];
    assert_eq!((said.code, said.out.lines().count()), (64, starts.len()), "{said:?}");
    for (line, start) in said.out.lines().zip(starts) {
        assert!(line.contains(start), "no {start:?} in {line:?}");
    }
    let served = settings.serve();
    for start in &starts[..4] {
        assert!(served.err.contains(start), "no {start:?} in {served:?}");
    }
}

#[test]
fn machines_are_told_faults_in_fields() {
    let settings = Settings::new("[http]\nlissten = \"x\"\n").drop_in("a.toml", "[http]\nlisten = \"x\"\n");
    let said = settings.run(&["config", "check", "--json"]);
    let faults = &said.json()["faults"];
    assert_eq!((said.code, &said.json()["ok"]), (64, &json!(false)), "{said:?}");
    assert_eq!(
        faults[0],
        json!({
            "file": arg(&settings.file()),
            "line": 2,
            "key": "http.lissten",
            "message": "http.lissten is no setting; did you mean http.listen?",
        })
    );
    assert_eq!([&faults[1]["line"], &faults[1]["key"]], [&json!(2), &json!("http.listen")]);
    assert_eq!(faults[1]["file"], arg(&settings.path("tidings.toml.d/a.toml")));
    let good = Settings::new("").drop_in("a.toml", "");
    let told = good.run(&["config", "check", "--json"]).well().json();
    assert_eq!([&told["ok"], &told["faults"], &told["file"]], [&json!(true), &json!([]), &json!(arg(&good.file()))]);
    assert_eq!(told["drop_ins"], json!([arg(&good.path("tidings.toml.d/a.toml"))]));
}

#[test]
fn drop_ins_win_in_order_of_name_the_environment_over_them_and_flags_over_all() {
    let settings = Settings::new("[http]\nbase_path = \"/file\"\n[log]\nformat = \"json\"\n")
        .drop_in("9.toml", "[http]\nbase_path = \"/nine\"\n")
        .drop_in("10.toml", "[http]\nbase_path = \"/ten\"\n[log]\nlevel = \"warn\"\n")
        .drop_in("99.toml~", "[http]\nbase_path = \"/backup\"\n");
    let env = ("TIDINGS_HTTP_BASE_PATH", "/environment");
    let show = ["config", "show", "--json", "--config"];
    let drop_in = format!("{}:2", settings.path("tidings.toml.d/9.toml").display());
    assert_eq!(shown(settings.run(&show), "http.base_path"), (json!("/nine"), drop_in));
    let file = format!("{}:4", settings.file().display());
    assert_eq!(shown(settings.run(&show), "log.format"), (json!("json"), file));
    let said = settings.run_with(&show, &[env]);
    assert_eq!(shown(said, "http.base_path"), (json!("/environment"), env.0.to_owned()));
    let flagged = ["config", "show", "--json", "--data", "d", "--config"];
    let said = settings.run_with(&flagged, &[("TIDINGS_DATA", "e")]);
    assert_eq!(shown(said, "data"), (json!("d"), "--data".to_owned()));

    let on = || Setup::serve().arg("--config").arg(arg(&settings.file()));
    for (setup, path) in [
        (on(), "/nine"),
        (on().env(env.0, env.1), env.1),
        (on().env(env.0, env.1).arg("--base-path").arg("/flag"), "/flag"),
    ] {
        let server = setup.start();
        assert!(server.url().ends_with(path), "{} instead of {path}", server.url());
    }
}

#[test]
fn the_documented_defaults_are_a_settings_file_that_changes_nothing() {
    let none = Settings::new("");
    let defaults = run(&["config", "default"], "").well().out;
    let fed = Settings::new(&defaults);
    assert!(values(&none.file()).len() > 20);
    assert_eq!(values(&fed.file()), values(&none.file()));
    let told = fed.run(&["config", "show", "--config"]).well().out;
    assert!(told.starts_with("# ") && told.lines().count() == 1, "{told}");
}

#[test]
fn what_is_shown_is_a_settings_file_with_the_same_settings() {
    let odd = "data = 'a \"b\" \\c'\n[http]\norigins = [\"https://a.example\", \"https://b.example\"]\n";
    let settings = Settings::new(odd).drop_in("a # b.toml", "[streams]\nmax = 7\nheartbeat = 9\n");
    for show in [&["config", "show", "--all", "--config"][..], &["config", "show", "--config"]] {
        let text = settings.run(show).well().out;
        let fed = Settings::new(&text);
        assert_eq!(values(&fed.file()), values(&settings.file()), "{text}");
    }
    let differing = settings.run(&["config", "show", "--config"]).well().out;
    let keys: Vec<_> = differing.lines().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
    assert_eq!(keys, ["data", "origins", "heartbeat", "max"]);
}

#[test]
fn a_check_looks_at_what_settings_name_and_makes_nothing() {
    let settings = Settings::new("[streams]\nmax = 5\n").drop_in("a.toml", "");
    let data = settings.path("state");
    let check = ["config", "check", "--data", arg(&data)];
    let said = settings.run(&check).well();
    assert_eq!(said.out, format!("OK: {} (+1 drop-in)\n", settings.file().display()));
    assert!(!data.exists() && said.err.is_empty(), "{said:?}");

    let short = settings.write("short.key", "canary-of-eighteen\n");
    fs::set_permissions(&short, Permissions::from_mode(0o600)).expect("ours to change");
    let missing = settings.path("missing.key");
    let keys = |algorithm: &str, path: &Path| format!("{algorithm} web-2026 {}", path.display());
    let long = format!("/{}", "long/".repeat(30));
    for (key, value, told) in [
        ("TIDINGS_AUTH_JWT_SECRET_FILE", arg(&missing), "missing.key"),
        ("TIDINGS_AUTH_JWT_SECRET_FILE", arg(&short), "has 18 bytes"),
        ("TIDINGS_AUTH_JWT_KEYS", &keys("HS256", &missing), "missing.key"),
        ("TIDINGS_AUTH_JWT_KEYS", &keys("ES256", &short), "short.key"),
        ("TIDINGS_DATA", arg(&missing.join("state")), "missing.key is no directory: make it"),
        ("TIDINGS_DATA", arg(&short), "short.key is not a directory"),
        ("TIDINGS_DATA", arg(&short.join("state")), "short.key is no directory"),
        ("TIDINGS_HTTP_SOCKET", &long, "too long"),
        ("TIDINGS_LOG", "info,,=", "TIDINGS_LOG must be"),
    ] {
        let said = settings.run_with(&["config", "check"], &[(key, value)]);
        assert!(said.code == 64 && said.out.contains(told) && said.out.lines().count() == 1, "{told:?} in {said:?}");
        assert!(said.out.starts_with(key) && !said.out.contains("canary"), "{said:?}");
    }
    // Only the service sees its credentials: what can't be looked at is said, and is no fault.
    let handed = [("TIDINGS_AUTH_JWT_SECRET_FILE", "credential:jwt")];
    let said = settings.run_with(&check, &handed).well();
    assert!(said.err.contains("credential:jwt") && said.err.contains("was not looked at"), "{said:?}");
}

#[test]
fn a_secret_that_others_may_read_is_refused_with_what_to_type() {
    let settings = Settings::new("");
    let secret = settings.write("token.key", "a canary secret of more than thirty-two bytes\n");
    settings.write("tidings.toml", &format!("[auth]\njwt_secret_file = \"{}\"\n", secret.display()));
    fs::set_permissions(&secret, Permissions::from_mode(0o644)).expect("ours to change");
    let says_what_to_type = |told: &str| told.contains("chmod ") && told.contains(arg(&secret));
    let told = settings.faults();
    assert!(told.len() == 1 && told[0].contains("tidings.toml:2: auth.jwt_secret_file: "), "{told:?}");
    let data = settings.path("state");
    let served = settings.run(&["serve", "--listen", "127.0.0.1:0", "--data", arg(&data), "--config"]);
    assert!(served.code != 0 && says_what_to_type(&served.err), "{served:?}");
    assert!(says_what_to_type(&told[0]) && !told[0].contains("canary") && !served.err.contains("canary"), "{told:?}");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("ours to change");
    settings.run(&["config", "check"]).well();
}

#[test]
fn the_password_of_the_queue_stands_in_a_file_of_its_own_and_is_never_shown() {
    let inside = Settings::new("[amqp]\nurl = \"amqp://tidings:hunter2@mq.example\"\nqueue = \"q\"\n");
    let told = inside.faults();
    assert!(told.len() == 1 && told[0].contains("amqp.password_file") && !told[0].contains("hunter2"), "{told:?}");

    let settings = Settings::new("");
    let file = settings.write("password", "hunter2\n");
    let path = file.display();
    settings.write(
        "tidings.toml",
        &format!("[amqp]\nurl = \"amqp://tidings@mq.example\"\nqueue = \"q\"\npassword_file = \"{path}\"\n"),
    );
    let mode = |bits| fs::set_permissions(&file, Permissions::from_mode(bits)).expect("ours to change");
    mode(0o644);
    let told = settings.faults();
    assert!(told.len() == 1 && told[0].contains(&format!("chmod 0600 {path}")), "{told:?}");
    mode(0o600);
    settings.run(&["config", "check"]).well();
    settings.write("password", "\n");
    let told = settings.faults();
    assert!(told.len() == 1 && told[0].contains("holds no password"), "{told:?}");
}

#[test]
fn a_port_in_use_is_told_with_its_address_and_a_way_out() {
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = held.local_addr().expect("it listens").to_string();
    let settings = Settings::new(&format!("[http]\nlisten = \"{address}\"\n"));
    // It may be the running server's: a check before a restart finds nothing wrong with it.
    settings.run(&["config", "check"]).well();
    let said = settings.run(&["serve", "--data", arg(&settings.path("state")), "--config"]);
    assert!(said.code == 1 && said.err.contains(&format!("{address} is in use: ")), "{said:?}");
    assert!(said.err.contains("--listen"), "{said:?}");
}
