//! `tidings template`: texts with places for values, kept as files and pushed to the server.

use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::client::{Ask, Client, read};
use super::reach::ServerArgs;
use super::show::{List, fields};
use super::{Output, Usage, say, segment};
use crate::model::{MAX_TEMPLATE_TEXT_BYTES, TemplateName};

/// Templates of one page of the list.
const PAGE: u32 = 1_000;
/// The file that tells what a template is beside its texts.
const HEAD: &str = "template.toml";
/// The files of a language, and where each stands in the definition.
const FILES: [(&str, &str, &str); 9] = [
    ("in_app.title.txt", "in_app", "title"),
    ("in_app.body.txt", "in_app", "body"),
    ("in_app.click.txt", "in_app", "click"),
    ("email.subject.txt", "email", "subject"),
    ("email.text.txt", "email", "text"),
    ("email.html", "email", "html"),
    ("dingtalk.title.txt", "dingtalk", "title"),
    ("dingtalk.text.md", "dingtalk", "text"),
    ("webhook.json", "webhook", ""),
];

const PUSH_EXAMPLES: &str = "\
Examples:
  tidings template push examples/templates --publish --data ./state
  tidings template push examples/templates/loan-due --data ./state

DIR is one template or a folder of them. A template is a folder of its name with template.toml
(category, default_locale, time_zone, [variables.NAME]) and a folder for each language with
in_app.title.txt, in_app.body.txt, in_app.click.txt, email.subject.txt, email.text.txt, email.html,
dingtalk.title.txt, dingtalk.text.md, webhook.json, as far as there are such. What was pushed
before stays the version that it is. With --json one template a line.";

const LIST_EXAMPLES: &str = "\
Examples:
  tidings template list --data ./state
  tidings template list --data ./state --json | jq -r 'select(.published == null).name'

With --json one template a line.";

const SHOW_EXAMPLES: &str = "\
Examples:
  tidings template show loan-due --data ./state
  tidings template show loan-due --version 1 --data ./state --json | jq .definition";

const PREVIEW_EXAMPLES: &str = "\
Examples:
  tidings template preview loan-due --locale zh-TW --data ./state \\
    --params '{\"name\":\"Alice\",\"due\":\"2026-11-27\"}'
  tidings template preview loan-due --params-file sample.json --data ./state --json | jq -r .email.html";

const PUBLISH_EXAMPLES: &str = "\
Examples:
  tidings template publish loan-due --data ./state
  tidings template publish loan-due --version 1 --data ./state     back to what was

Publishes that name no version get it from here on.";

const DELETE_EXAMPLES: &str = "\
Examples:
  tidings template delete loan-due --data ./state
  tidings template delete loan-due --yes --data ./state

What was sent by it stays as it is.";

/// What is done with templates.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register templates from files.
    #[command(after_help = PUSH_EXAMPLES)]
    Push(PushArgs),
    /// List the templates, in order of their names.
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show a template.
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// Show what comes out of a template.
    #[command(after_help = PREVIEW_EXAMPLES)]
    Preview(PreviewArgs),
    /// Let publishes get a version of a template.
    #[command(after_help = PUBLISH_EXAMPLES)]
    Publish(ShowArgs),
    /// Remove a template with all its versions.
    #[command(after_help = DELETE_EXAMPLES)]
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// A template's folder, or a folder of them
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Publish what was pushed
    #[arg(long)]
    publish: bool,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The template
    #[arg(value_parser = TemplateName::new)]
    name: TemplateName,
    /// The version [default: the newest]
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct PreviewArgs {
    /// The template
    #[arg(value_parser = TemplateName::new)]
    name: TemplateName,
    /// The values, as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "params_file")]
    params: Option<String>,
    /// A file with the values, as JSON
    #[arg(long, value_name = "FILE")]
    params_file: Option<PathBuf>,
    /// The reader's language
    #[arg(long, value_name = "TAG")]
    locale: Option<String>,
    /// A time zone in place of the template's
    #[arg(long, value_name = "NAME")]
    time_zone: Option<String>,
    /// The version [default: the newest]
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The template
    #[arg(value_parser = TemplateName::new)]
    name: TemplateName,
    /// Ask nothing
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A template as it is shown.
#[derive(Debug, Deserialize)]
struct Shown {
    name: String,
    version: u32,
    state: String,
    published: Option<u32>,
    created_at: String,
    definition: Option<Box<RawValue>>,
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Push(args) => push(args).await,
        Command::List(args) => list(args).await,
        Command::Show(args) => show(args).await,
        Command::Preview(args) => preview(args).await,
        Command::Publish(args) => publish(args).await,
        Command::Delete(args) => delete(args).await,
    }
}

fn path(name: &TemplateName) -> String {
    format!("/v1/templates/{}", segment(name.as_str()))
}

async fn push(args: PushArgs) -> anyhow::Result<()> {
    let templates = folders(&args.folder)?;
    let output = Output::of(args.json);
    args.server
        .ask(async |client: &Client| {
            for (name, definition) in &templates {
                let ask = Ask::new(Method::PUT, path(name)).json(definition)?;
                let mut answer = client.ask(&ask).await.with_context(|| name.to_string())?;
                if args.publish {
                    let version: Shown = read(&answer)?;
                    let ask = Ask::new(Method::POST, format!("{}/publish", path(name)))
                        .json(&json!({ "version": version.version }))?;
                    answer = client.ask(&ask).await.with_context(|| name.to_string())?;
                }
                match output {
                    Output::Json => say(String::from_utf8_lossy(&answer))?,
                    Output::People => say(read::<Shown>(&answer)?.line())?,
                }
            }
            Ok(())
        })
        .await
}

/// The templates of a folder, by name.
fn folders(folder: &Path) -> anyhow::Result<Vec<(TemplateName, Value)>> {
    let of = |folder: &Path| -> anyhow::Result<(TemplateName, Value)> {
        let whole = fs::canonicalize(folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let name = whole.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = TemplateName::new(&name).with_context(|| format!("the folder {}", folder.display()))?;
        Ok((name, definition(folder)?))
    };
    if folder.join(HEAD).is_file() {
        return Ok(vec![of(folder)?]);
    }
    let mut found = Vec::new();
    for path in entries(folder)? {
        if path.join(HEAD).is_file() {
            found.push(of(&path)?);
        }
    }
    if found.is_empty() {
        return Err(
            Usage(format!("{} holds no template: no {HEAD} is in it or in a folder of it", folder.display())).into()
        );
    }
    Ok(found)
}

fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let context = || format!("cannot list {}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        // Editors and file managers leave files with a dot.
        if !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// A template's folder as its definition.
fn definition(folder: &Path) -> anyhow::Result<Value> {
    let head = folder.join(HEAD);
    let table: toml::Table = text(&head)?.parse().map_err(|e| Usage(format!("{}: {e}", head.display())))?;
    let mut definition = serde_json::to_value(table).with_context(|| head.display().to_string())?;
    let mut texts = Map::new();
    for path in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        let locale = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        texts.insert(locale, language(&path)?);
    }
    if let Some(object) = definition.as_object_mut() {
        object.insert("texts".to_owned(), texts.into());
    }
    Ok(definition)
}

/// The files of a language.
fn language(folder: &Path) -> anyhow::Result<Value> {
    let mut media: Map<String, Value> = Map::new();
    for path in entries(folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((_, medium, field)) = FILES.into_iter().find(|(file, ..)| *file == name) else {
            let known: Vec<&str> = FILES.iter().map(|(file, ..)| *file).collect();
            return Err(
                Usage(format!("{} is no text of a template; there are {}", path.display(), known.join(", "))).into()
            );
        };
        let text = text(&path)?;
        // Editors end a file with a line break, which is not meant.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if field.is_empty() {
            media.insert(medium.to_owned(), text.into());
        } else {
            let fields = media.entry(medium).or_insert_with(|| Map::new().into());
            fields.as_object_mut().and_then(|fields| fields.insert(field.to_owned(), text.into()));
        }
    }
    Ok(media.into())
}

/// A file, which is not longer than a text may be.
fn text(path: &Path) -> anyhow::Result<String> {
    let context = || format!("cannot read {}", path.display());
    let size = fs::metadata(path).with_context(context)?.len();
    if size > MAX_TEMPLATE_TEXT_BYTES as u64 {
        bail!("{} has {size} bytes; a text has at most {MAX_TEMPLATE_TEXT_BYTES}", path.display());
    }
    fs::read_to_string(path).with_context(context)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let (list, output) = (List { path: "/v1/templates".to_owned(), page: PAGE }, Output::of(args.json));
    let count = args.server.ask(async |client: &Client| list.write(client, output, Shown::line).await).await?;
    if count == 0 && output == Output::People {
        eprintln!("No templates yet; `tidings template push` registers some");
    }
    Ok(())
}

async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let version = args.version.map_or(String::new(), |version| format!("?version={version}"));
    tell(&args.server, &Ask::get(format!("{}{version}", path(&args.name))), Output::of(args.json)).await
}

async fn publish(args: ShowArgs) -> anyhow::Result<()> {
    let ask =
        Ask::new(Method::POST, format!("{}/publish", path(&args.name))).json(&json!({ "version": args.version }))?;
    tell(&args.server, &ask, Output::of(args.json)).await
}

async fn tell(server: &ServerArgs, ask: &Ask<'_>, output: Output) -> anyhow::Result<()> {
    let answer = server.ask(async |client: &Client| client.ask(ask).await).await?;
    match output {
        Output::Json => say(String::from_utf8_lossy(&answer)),
        Output::People => say(read::<Shown>(&answer)?.told()),
    }
}

async fn preview(args: PreviewArgs) -> anyhow::Result<()> {
    let params = match (&args.params, &args.params_file) {
        (Some(params), _) => params.clone(),
        (None, Some(file)) => fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?,
        (None, None) => "{}".to_owned(),
    };
    let params: &RawValue = serde_json::from_str(&params).map_err(|e| Usage(format!("the values are no JSON: {e}")))?;
    let ask = Ask::new(Method::POST, format!("{}/preview", path(&args.name))).json(&json!({
        "version": args.version, "params": params, "locale": args.locale, "time_zone": args.time_zone,
    }))?;
    let answer = args.server.ask(async |client: &Client| client.ask(&ask).await).await?;
    match Output::of(args.json) {
        Output::Json => say(String::from_utf8_lossy(&answer)),
        Output::People => say(previewed(&read(&answer)?)),
    }
}

/// Each text below its name.
fn previewed(preview: &Map<String, Value>) -> String {
    let mut told = Vec::new();
    for (medium, texts) in preview {
        match texts {
            Value::Object(texts) => {
                for (field, text) in texts {
                    told.push(format!("--- {medium} {field}\n{}", text.as_str().unwrap_or_default()));
                }
            }
            Value::String(text) => told.push(format!("--- {medium}\n{text}")),
            other => told.push(format!("--- {medium}\n{other}")),
        }
    }
    told.join("\n")
}

async fn delete(args: DeleteArgs) -> anyhow::Result<()> {
    if !args.yes && !confirmed(&args.name)? {
        bail!("nothing was deleted");
    }
    let ask = Ask::new(Method::DELETE, path(&args.name));
    args.server.ask(async |client: &Client| client.ask(&ask).await).await?;
    match Output::of(args.json) {
        Output::Json => say(json!({ "name": args.name.as_str(), "deleted": true })),
        Output::People => say(format_args!("Deleted {}", args.name)),
    }
}

/// Asks the person at the terminal.
fn confirmed(name: &TemplateName) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(Usage(format!("deleting {name} can't be undone; where nobody can be asked, say --yes")).into());
    }
    eprint!("Delete {name} with all its versions? Services that send by it will be refused. Type `yes`: ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.trim() == "yes")
}

impl Shown {
    fn line(&self) -> String {
        let published = self.published.map_or("never published".to_owned(), |version| format!("published: {version}"));
        format!("{:<32}  version {:<4}  {:<9}  {published}", self.name, self.version, self.state)
    }

    fn told(&self) -> String {
        let head = fields(&[
            ("template", Some(self.name.clone())),
            ("version", Some(format!("{} ({})", self.version, self.state))),
            ("published", self.published.map(|version| version.to_string())),
            ("created", Some(self.created_at.clone())),
        ]);
        let definition = self.definition.as_ref().and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok());
        match definition.and_then(|value| serde_json::to_string_pretty(&value).ok()) {
            Some(definition) => format!("{head}\n{definition}"),
            None => head,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_becomes_a_definition_that_is_taken() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/templates");
        let found = folders(&examples).expect("templates");
        for (name, definition) in &found {
            let parsed = crate::wire::template::parse_template(definition.to_string().as_bytes());
            assert!(parsed.is_ok(), "{name}: {parsed:?}");
        }
        let one = folders(&examples.join("loan-due")).expect("a template");
        assert_eq!(one[0].0.as_str(), "loan-due");
        assert_eq!(one[0].1["texts"]["en"]["in_app"]["title"], "Due on {{ due|date(\"%-d %B\") }}");
    }

    #[test]
    fn a_file_that_is_no_text_of_a_template_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(folders(folder.path()).is_err());
        fs::write(folder.path().join(HEAD), "category = \"loans\"\n").expect("it can be written");
        fs::create_dir(folder.path().join("en")).expect("it can be made");
        fs::write(folder.path().join("en/in_app.titel.txt"), "x").expect("it can be written");
        let told = definition(folder.path()).expect_err("it is misspelt").to_string();
        assert!(told.contains("in_app.titel.txt") && told.contains("in_app.title.txt"), "{told}");
    }
}
