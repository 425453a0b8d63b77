//! Which DingTalk robot speaks of which category. A robot writes into one group, so that this says who reads it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Category;

/// What settings call a robot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RobotName(Arc<str>);

impl RobotName {
    /// Characters at most.
    pub const MAX_CHARS: usize = 32;

    /// 1 to 32 of the characters a-z 0-9 _, so that each robot has variables of its own in the environment; `None` for
    /// anything else.
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        ((1..=Self::MAX_CHARS).contains(&text.len()) && text.bytes().all(is_plain)).then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RobotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Two robots for the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    #[error("names no categories, and neither does `{0}`: one robot at most takes what no other is named for")]
    Default(RobotName),
    #[error("names the category `{0}`, and so does `{1}`")]
    Category(Category, RobotName),
}

/// Which robot speaks of what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Robots {
    by_category: BTreeMap<Category, RobotName>,
    /// Takes what no other is named for.
    default: Option<RobotName>,
}

impl Robots {
    /// Adds a robot; without categories it takes what no other is named for.
    ///
    /// # Errors
    /// [`Clash`], where another one is there for the same. The categories before it are the new one's.
    pub fn add(&mut self, name: &RobotName, categories: &[Category]) -> Result<(), Clash> {
        if categories.is_empty() {
            return match &self.default {
                Some(other) => Err(Clash::Default(other.clone())),
                None => {
                    self.default = Some(name.clone());
                    Ok(())
                }
            };
        }
        for category in categories {
            if let Some(other) = self.by_category.get(category).filter(|other| *other != name) {
                return Err(Clash::Category(category.clone(), other.clone()));
            }
            self.by_category.insert(category.clone(), name.clone());
        }
        Ok(())
    }

    /// Who speaks of a category; nobody where no robot is named for it and none takes the rest.
    pub fn robot_for(&self, category: &Category) -> Option<&str> {
        self.by_category.get(category).or(self.default.as_ref()).map(RobotName::as_str)
    }

    /// Whether a robot has this name.
    pub fn has(&self, name: &str) -> bool {
        self.by_category.values().chain(&self.default).any(|robot| robot.as_str() == name)
    }

    pub fn is_empty(&self) -> bool {
        self.by_category.is_empty() && self.default.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RobotName {
        RobotName::new(text).expect("a name")
    }

    fn category(text: &str) -> Category {
        Category::new(text).expect("a category")
    }

    #[test]
    fn a_category_has_its_own_robot_or_the_one_that_takes_the_rest() {
        let mut robots = Robots::default();
        assert_eq!((robots.robot_for(&category("loans")), robots.is_empty()), (None, true));
        robots.add(&name("oncall"), &[category("alerts"), category("deploys")]).expect("the first");
        assert_eq!(robots.robot_for(&category("alerts")), Some("oncall"));
        assert_eq!(robots.robot_for(&category("loans")), None);
        robots.add(&name("rest"), &[]).expect("the first without categories");
        assert_eq!(robots.robot_for(&category("loans")), Some("rest"));
        assert_eq!(robots.robot_for(&category("deploys")), Some("oncall"));
    }

    #[test]
    fn two_robots_for_the_same_are_told() {
        let mut robots = Robots::default();
        robots.add(&name("a"), &[category("alerts")]).expect("the first");
        let told = robots.add(&name("b"), &[category("alerts")]).expect_err("the second").to_string();
        assert_eq!(told, "names the category `alerts`, and so does `a`");
        robots.add(&name("a"), &[]).expect("the first without categories");
        assert_eq!(robots.add(&name("b"), &[]), Err(Clash::Default(name("a"))));
    }

    #[test]
    fn names_are_plain_words() {
        assert!(RobotName::new("on_call2").is_some());
        for bad in ["", "NAME", "a-b", "a.b", "库", &"a".repeat(33)] {
            assert_eq!(RobotName::new(bad), None, "{bad}");
        }
    }
}
