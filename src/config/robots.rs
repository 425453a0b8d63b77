//! The robots of DingTalk as settings name them, checked alone and against each other.
//!
//! Deliberately not here: what stands in their files, which is looked at by `tidings config check` and read by the server.

use super::check::{count, path, span};
use super::overlay::Overlay;
use super::value::Value;
use crate::deliver::dingtalk::{RobotFiles, Settings};
use crate::model::{Category, RobotName, Robots};

/// Where sections of robots stand.
const FAMILY: &str = "dingtalk.robots";
/// Seconds.
const HOUR: u64 = 3_600;

/// Reads every robot. One that can't be used is left out, and its fault in the overlay.
pub(super) fn check(o: &mut Overlay) -> (Settings, Robots) {
    let mut settings = Settings {
        robots: Vec::new(),
        too_fast_rest: span(o, "dingtalk.too_fast_rest", 1..=HOUR),
        ca_file: o.read("dingtalk.ca_file", "the path of a file, or empty", path),
    };
    let mut speak = Robots::default();
    for name in o.members(FAMILY) {
        let key = |setting: &str| format!("{FAMILY}.{name}.{setting}");
        let name = RobotName::new(&name).expect("the overlay lets no other name through");
        let file = "the path of a file, credential:NAME, or empty";
        let url_file = o.read(&key("url_file"), file, path);
        let secret_file = o.read(&key("secret_file"), file, path);
        let per_minute = count(o, &key("per_minute"), 1..=600);
        let categories = o.read(&key("categories"), "a list of categories, such as [\"alerts\"]", categories);
        let Some(url_file) = url_file else {
            o.refuse_in(FAMILY, name.as_str(), "url_file", "must name the file with the robot's address");
            continue;
        };
        if let Err(clash) = speak.add(&name, &categories) {
            o.refuse_in(FAMILY, name.as_str(), "categories", &clash.to_string());
        }
        settings.robots.push(RobotFiles { name, url_file, secret_file, per_minute });
    }
    (settings, speak)
}

fn categories(value: &Value) -> Option<Vec<Category>> {
    value.list()?.iter().map(|name| Category::new(name).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Loaded, SettingsFile, Sources};

    fn loaded(text: &str) -> Loaded {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("t.toml");
        std::fs::write(&file, text).expect("ours to write");
        let file = SettingsFile::Named(file);
        Loaded::read(Sources { presets: Vec::new(), file, environment: Vec::new(), flags: Vec::new() })
    }

    #[test]
    fn robots_are_read_with_their_files_and_categories() {
        let config = loaded(
            "[dingtalk.robots.oncall]\nurl_file = '/etc/oncall.url'\nsecret_file = 'credential:oncall'\n\
             categories = ['alerts']\nper_minute = 5\n[dingtalk.robots.rest]\nurl_file = '/etc/rest.url'\n",
        )
        .checked()
        .expect("is valid");
        let [oncall, rest] = &config.dingtalk.robots[..] else { panic!("{:?}", config.dingtalk) };
        assert_eq!((oncall.name.as_str(), oncall.per_minute, rest.per_minute), ("oncall", 5, 20));
        assert_eq!(oncall.secret_file.as_deref(), Some("credential:oncall".as_ref()));
        let robot_for = |name| config.robots.robot_for(&crate::model::Category::new(name).expect("a category"));
        assert_eq!((robot_for("alerts"), robot_for("loans")), (Some("oncall"), Some("rest")));
    }

    #[test]
    fn what_is_wrong_with_robots_is_told_where_it_stands() {
        for (text, told) in [
            (
                "[dingtalk.robots.a]\nper_minute = 3",
                ":1: dingtalk.robots.a.url_file must name the file with the robot's address",
            ),
            ("[dingtalk.robots.a]\n", ":1: dingtalk.robots.a.url_file must name the file with the robot's address"),
            (
                "[dingtalk.robots.a]\nurl_file = 'x'\nper_minute = 0",
                ":3: dingtalk.robots.a.per_minute must be a whole number from 1 to 600",
            ),
            (
                "[dingtalk.robots.a]\nurl_file = 'x'\ncategories = ['a b']",
                ":3: dingtalk.robots.a.categories must be a list of categories",
            ),
            (
                "[dingtalk.robots.a]\nurl_file = 'x'\n[dingtalk.robots.b]\nurl_file = 'y'",
                ":3: dingtalk.robots.b.categories names no categories",
            ),
            (
                "[dingtalk.robots.a]\nurl_file = 'x'\ncategories = ['c']\n[dingtalk.robots.b]\nurl_file = 'y'\ncategories = ['c']",
                ":6: dingtalk.robots.b.categories names the category `c`, and so does `a`",
            ),
            ("[dingtalk]\ntoo_fast_rest = '2h'", ":2: dingtalk.too_fast_rest must be a duration from 1s to 1h"),
        ] {
            let faults: Vec<String> = loaded(text).faults().iter().map(ToString::to_string).collect();
            assert!(faults.len() == 1 && faults[0].contains(told), "{faults:?}, not {told}");
        }
    }
}
