//! `tidings completions` and `tidings man`: what a shell and `man` have to know, made from the texts that `--help` shows.
//!
//! Data passes from the command tree, and from the compiled-in settings, to shell code on standard output or to pages in
//! a directory. **Invariant**: nothing is described here that is not described there, so a page can't fall behind.
//!
//! Deliberately not here: compressing and installing; a package does that.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args as ClapArgs, Command, CommandFactory as _, ValueEnum};
use clap_complete::aot;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, exit, say};
use crate::config::DEFAULTS;

const EXAMPLES_COMPLETIONS: &str = "\
Examples:
  tidings completions bash > ~/.local/share/bash-completion/completions/tidings
  tidings completions zsh > ~/.zfunc/_tidings          with ~/.zfunc in $fpath
  tidings completions fish > ~/.config/fish/completions/tidings.fish

The Debian package brings all three.";

const EXAMPLES_MAN: &str = "\
Examples:
  tidings man ~/.local/share/man/man1
  tidings man ./man && man ./man/tidings-publish.1

One page a command, and tidings.toml.5 for the settings. Pages of the same names are
overwritten. The Debian package brings them.";

/// What every page says of files.
const FILES: [(&str, &str); 3] = [
    ("/etc/tidings/tidings.toml", "Settings; see tidings.toml(5). It need not exist."),
    ("/etc/tidings/tidings.toml.d/*.toml", "More settings, in order of name; later ones win."),
    ("/var/lib/tidings", "The state directory of the service: database, lock, secrets, sockets."),
];

/// Flags of `completions`.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES_COMPLETIONS)]
pub(super) struct CompletionsArgs {
    /// For which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Shells that the package brings completions for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Flags of `man`.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES_MAN)]
pub(super) struct ManArgs {
    /// Where the pages go; made where it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let shell = match args.shell {
        Shell::Bash => aot::Shell::Bash,
        Shell::Zsh => aot::Shell::Zsh,
        Shell::Fish => aot::Shell::Fish,
    };
    // Into memory first: the generator panics when standard output is closed early.
    let mut script = Vec::new();
    aot::generate(shell, &mut Cli::command(), "tidings", &mut script);
    io::stdout().lock().write_all(&script).context("cannot write to standard output")
}

pub(super) fn man(args: &ManArgs) -> anyhow::Result<()> {
    fs::create_dir_all(&args.directory).with_context(|| format!("cannot make {}", args.directory.display()))?;
    for (name, page) in pages()? {
        let path = args.directory.join(name);
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
        say(path.display())?;
    }
    Ok(())
}

/// Every page with the name of its file.
fn pages() -> io::Result<Vec<(String, Vec<u8>)>> {
    // `tidings help COMMAND` is the same text again.
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = vec![("tidings.toml.5".to_owned(), settings_page().into_bytes())];
    add_command_pages(&root, &mut pages)?;
    Ok(pages)
}

fn add_command_pages(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    pages.push((format!("{}.1", page_name(command)), command_page(command)?));
    command.get_subcommands().try_for_each(|sub| add_command_pages(sub, pages))
}

/// Such as `tidings-key-create`.
fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn command_page(command: &Command) -> io::Result<Vec<u8>> {
    let name = page_name(command);
    let man = Man::new(command.clone()).title(name.to_uppercase()).section("1").source(source()).manual("Tidings");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    add_after_help(command, &mut rest);
    add_list("EXIT STATUS", &exit::MEANINGS, &mut rest);
    add_list("FILES", &FILES, &mut rest);
    rest.control("SH", ["SEE ALSO"]);
    let parent = name.rsplit_once('-').map(|(parent, _)| format!("{parent}(1), "));
    rest.text([roman(format!("{}tidings.toml(5)", parent.unwrap_or_default()))]);
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// What stands behind the flags in `--help`: the examples, then what there is to know.
fn add_after_help(command: &Command, page: &mut Roff) {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (examples, notes) = text.split_once("\n\n").unwrap_or((&text, ""));
    if let Some(examples) = examples.strip_prefix("Examples:\n") {
        page.control("SH", ["EXAMPLES"]);
        add_as_it_is(examples, page);
    }
    if !notes.is_empty() {
        page.control("SH", ["NOTES"]);
        add_as_it_is(notes, page);
    }
}

/// Lines that stay lines.
fn add_as_it_is(text: &str, page: &mut Roff) {
    page.control("nf", []);
    text.lines().for_each(|line| {
        page.text([roman(line)]);
    });
    page.control("fi", []);
}

fn add_list(heading: &str, items: &[(&str, &str)], page: &mut Roff) {
    page.control("SH", [heading]);
    for (term, meaning) in items {
        page.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
    }
}

/// The settings with their defaults, comment by comment: a paragraph for what stands alone, an entry for each key.
fn settings_page() -> String {
    let mut page = Roff::new();
    page.control("TH", ["TIDINGS.TOML", "5", "", &source(), "Tidings"]);
    page.control("SH", ["NAME"]).text([roman("tidings.toml - settings of the notification server tidings")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([bold("/etc/tidings/tidings.toml")]);
    page.control("br", []).text([bold("/etc/tidings/tidings.toml.d/*.toml")]);
    page.control("SH", ["DESCRIPTION"]);
    let mut comment: Vec<&str> = Vec::new();
    for line in DEFAULTS.lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push(text.trim());
        } else if line.is_empty() {
            add_paragraphs(&std::mem::take(&mut comment), &mut page);
        } else if line.starts_with('[') {
            page.control("SH", [line]);
            add_paragraphs(&std::mem::take(&mut comment), &mut page);
        } else {
            page.control("TP", []).text([bold(line)]).text([roman(std::mem::take(&mut comment).join(" "))]);
        }
    }
    page.control("SH", ["SEE ALSO"]).text([roman("tidings(1), tidings-serve(1)")]);
    page.render()
}

/// A comment that belongs to no key; an empty line in it begins a paragraph.
fn add_paragraphs(comment: &[&str], page: &mut Roff) {
    for paragraph in comment.split(|line| line.is_empty()).filter(|lines| !lines.is_empty()) {
        page.control("PP", []).text([roman(paragraph.join(" "))]);
    }
}

fn source() -> String {
    concat!("tidings ", env!("CARGO_PKG_VERSION")).to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn page(name: &str) -> String {
        let pages = pages().expect("memory takes everything");
        let (_, page) = pages.into_iter().find(|(file, _)| file == name).unwrap_or_else(|| panic!("no {name}"));
        String::from_utf8(page).expect("text")
    }

    #[test]
    fn every_command_has_a_page_with_its_examples_and_exit_codes() {
        fn names(command: &Command, all: &mut BTreeSet<String>) {
            all.insert(format!("{}.1", page_name(command)));
            command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(|sub| names(sub, all));
        }
        let mut wanted = BTreeSet::from(["tidings.toml.5".to_owned()]);
        let mut root = Cli::command();
        root.build();
        names(&root, &mut wanted);
        assert!(wanted.contains("tidings-key-create.1"), "nested ones too: {wanted:?}");
        let pages = pages().expect("memory takes everything");
        assert_eq!(pages.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>(), wanted);
        for (name, page) in pages.iter().filter(|(name, _)| name.ends_with(".1")) {
            let text = String::from_utf8_lossy(page);
            for heading in [".SH NAME", ".SH SYNOPSIS", ".SH \"EXIT STATUS\"", ".SH FILES", ".SH \"SEE ALSO\""] {
                assert!(text.contains(heading), "{name}: no {heading} in\n{text}");
            }
            // A command of commands leaves the examples to those.
            assert!(text.contains(".SH EXAMPLES") || text.contains(".SH SUBCOMMANDS"), "{name}:\n{text}");
        }
    }

    #[test]
    fn the_page_of_a_nested_command_bears_its_whole_name() {
        let page = page("tidings-key-create.1");
        assert!(page.contains(".TH TIDINGS-KEY-CREATE 1"), "{page}");
        assert!(page.contains("\\fBtidings key create\\fR"), "{page}");
        assert!(page.contains("tidings\\-key(1), tidings.toml(5)"), "{page}");
    }

    #[test]
    fn the_page_of_the_settings_has_every_key_with_its_default() {
        fn look(section: &str, settings: &toml::Table, page: &str) {
            for (key, value) in settings {
                match value.as_table() {
                    Some(inner) if section.is_empty() => look(key, inner, page),
                    Some(inner) => look(&format!("{section}.{key}"), inner, page),
                    None => assert!(page.contains(&format!("\\fB{key} = ")), "no {key} in\n{page}"),
                }
            }
            let has_settings = settings.values().any(|value| !value.is_table());
            let is_there = section.is_empty() || !has_settings || page.contains(&format!(".SH [{section}]"));
            assert!(is_there, "no [{section}] in\n{page}");
        }
        let page = page("tidings.toml.5");
        let settings: toml::Table = DEFAULTS.parse().expect("the settings are TOML");
        look("", &settings, &page);
    }

    #[test]
    fn a_line_that_begins_as_a_command_of_roff_is_text() {
        let mut page = Roff::new();
        add_as_it_is(".SH not a heading\n'nor this", &mut page);
        let text = page.render();
        assert!(!text.contains("\n.SH not") && !text.contains("\n'nor"), "{text}");
    }
}
