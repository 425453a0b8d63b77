//! Running a text that was read and written back by `scan`: with a bound on steps and on what comes out.

use std::io;
use std::sync::LazyLock;

use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::filter;
use super::scan::Fault;

/// Steps that one text may take: what two loops of 100 items each need, a few times over.
const FUEL: u64 = 400_000;
/// Bytes that one text may become.
const MAX_OUTPUT_BYTES: usize = 256 * 1024;

static ENGINE: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut engine = Environment::empty();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_fuel(Some(FUEL));
    filter::install(&mut engine);
    engine
});

/// Whether the engine takes a text.
///
/// # Errors
/// [`Fault`].
pub(super) fn compile(source: &str) -> Result<(), Fault> {
    ENGINE.template_from_str(source).map(drop).map_err(|error| told(&error))
}

/// Runs a text with these values.
///
/// # Errors
/// [`Fault`] where it grows beyond its bounds, or a value does not fit.
pub(super) fn run(source: &str, values: &Value) -> Result<String, Fault> {
    let mut out = Capped(Vec::new());
    let template = ENGINE.template_from_str(source).map_err(|error| told(&error))?;
    template.render_captured_to(values.clone(), &mut out).map_err(|error| told(&error))?;
    String::from_utf8(out.0).map_err(|_| Fault::new("what came out is not UTF-8"))
}

/// What is wrong, in one line of our words where we have some.
fn told(error: &Error) -> Fault {
    let what = match error.kind() {
        ErrorKind::OutOfFuel => "it takes too many steps".to_owned(),
        ErrorKind::WriteFailure => format!("it grows beyond {MAX_OUTPUT_BYTES} bytes"),
        _ => error.detail().map_or_else(|| error.kind().to_string(), str::to_owned),
    };
    Fault(super::escape::line(&what))
}

struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_text_that_grows_or_never_ends_is_stopped() {
        let items: Vec<Value> =
            vec![Value::from(BTreeMap::from([("t".to_owned(), Value::from("x".repeat(1_000)))])); 100];
        let values = Value::from(BTreeMap::from([("a".to_owned(), Value::from(items))]));
        let twice = "{% for x in a %}{% for y in a %}{{ y.t|e_plain }}{% endfor %}{% endfor %}";
        assert_eq!(run(twice, &values), Err(Fault(format!("it grows beyond {MAX_OUTPUT_BYTES} bytes"))));
        let quiet = "{% for x in a %}{% for y in a %}{% for z in a %}{% if z.t == 1 %}{% endif %}{% endfor %}{% endfor %}{% endfor %}";
        assert_eq!(run(quiet, &values), Err(Fault::new("it takes too many steps")));
    }
}
