//! A ticket and an API key let in whoever has the whole text, and nobody with less, more or other than that; a ticket is no
//! key, and a key no ticket.

use tidings::broker::{AuthError, Credentials};
use tidings::model::Identity;

use super::gate::Gate;
use super::input::Input;

pub fn ticket(data: &[u8]) {
    Gate::with(|gate| {
        let mut input = Input::new(data);
        let real = [&gate.ticket, &gate.key][usize::from(input.byte() % 2)];
        let text = match input.byte() % 4 {
            0 => input.text().into_owned(),
            // The public id is told in listings; what follows it is what counts.
            1 => format!("{}_{}", &real[..real.rfind('_').expect("it has parts")], input.text()),
            2 => real[..usize::from(input.byte()) % real.len()].to_owned() + &input.text(),
            _ => changed(real, &mut input),
        };
        let by_ticket = gate.knock(Credentials::Ticket(&text));
        match &by_ticket {
            Ok(Identity::User(user)) => assert_eq!((&text, user.user.as_str()), (&gate.ticket, "alice")),
            Ok(other) => panic!("{other:?} by a ticket"),
            Err(error) => assert!(*error == AuthError::Invalid && text != gate.ticket, "{error} for {text}"),
        }
        let by_password = gate.knock(Credentials::BasicPassword(&text));
        assert_eq!(matches!(by_password, Ok(Identity::Key(_))), text == gate.key, "{text}: {by_password:?}");
        let by_bearer = gate.knock(Credentials::Bearer(&text));
        assert_eq!(by_bearer.is_ok(), gate.is_ours(&text), "{text}: {by_bearer:?}");
    });
}

/// One character for another.
fn changed(real: &str, input: &mut Input<'_>) -> String {
    let mut bytes = real.as_bytes().to_vec();
    let at = usize::from(input.byte()) % bytes.len();
    bytes[at] = input.byte() % 0x80;
    String::from_utf8(bytes).expect("ASCII for ASCII")
}
