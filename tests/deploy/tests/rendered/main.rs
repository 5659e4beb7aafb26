//! Sets of values, what the chart renders of them, and whether that is a release that works.
//!
//! `values/NAME.yaml` and the recipes' values have their objects in `rendered/`. What is there is checked against the agent's own
//! command line and the API's types, here and everywhere; that the chart renders it takes helm. `PORTSIDE_GOLDEN=write` writes it.

mod refused;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use deploy::{
    cluster,
    objects::{self, Object},
    programs::{self, Release},
    root,
};
use testbed::runner::{self, row};

fn main() -> ExitCode {
    // A reason is told as long as the program runs.
    let missing: Option<&'static str> = programs::missing().map(|why| &*why.leak());
    let mut rows = Vec::new();
    let write = env::var_os("PORTSIDE_GOLDEN").is_some_and(|how| how == "write");
    for set in sets().expect("the sets of values can be listed") {
        if write {
            // Before any row reads it.
            set.write().expect("the set of values is rendered");
        }
        let Set { name, .. } = &set;
        let (checked, rendered) = (set.clone(), set.clone());
        rows.push(row(
            format!("{name}: renders what is kept"),
            missing,
            move || rendered.compare(),
        ));
        rows.push(row(
            format!("{name}: the agent and the API take it"),
            None,
            move || cluster::check(&objects::read(&checked.kept()?)?),
        ));
    }
    rows.push(row(
        "the base is the chart with its default values",
        missing,
        base,
    ));
    rows.push(row("the base: the agent and the API take it", None, || {
        let mut objects = Vec::new();
        for file in ["serviceaccount", "rbac", "daemonset"] {
            let path = root().join(format!("deploy/base/{file}.yaml"));
            objects.extend(objects::read(&fs::read_to_string(path)?)?);
        }
        cluster::check(&objects)
    }));
    rows.push(row(
        "the clean-up: the agent and the API take it",
        None,
        cleanup,
    ));
    rows.push(row(
        "chart and base have the version of the workspace",
        None,
        versions,
    ));
    rows.push(row(
        "the schema knows the values of values.yaml and no others",
        None,
        schema,
    ));
    rows.push(row("the notes say what is to be done", missing, notes));
    rows.extend(refused::rows(missing));
    runner::main(rows)
}

/// A file of values.
#[derive(Clone, Debug)]
struct Set {
    name: String,
    path: PathBuf,
}

fn sets() -> Result<Vec<Set>> {
    let mut sets = Vec::new();
    for path in files(&root().join("tests/deploy/values"))? {
        let name = stem(&path)?;
        sets.push(Set { name, path });
    }
    for path in files(&root().join("deploy/recipes"))? {
        let name = format!("recipe-{}", stem(&path)?);
        let path = path.join("values.yaml");
        if path.exists() {
            sets.push(Set { name, path });
        }
    }
    ensure!(sets.len() >= 28, "only {} sets", sets.len());
    Ok(sets)
}

/// What is in a directory, by name.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(Vec::new());
    };
    let mut paths: Vec<_> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn stem(path: &Path) -> Result<String> {
    let stem = path.file_stem().context("a file has a name")?;
    Ok(stem.to_string_lossy().into_owned())
}

impl Set {
    fn golden(&self) -> PathBuf {
        root().join(format!("tests/deploy/rendered/{}.yaml", self.name))
    }

    fn kept(&self) -> Result<String> {
        let path = self.golden();
        fs::read_to_string(&path)
            .with_context(|| format!("{}: PORTSIDE_GOLDEN=write writes it", path.display()))
    }

    fn rendered(&self) -> Result<String> {
        let values = fs::read_to_string(&self.path)?;
        release(&values).render(&values)
    }

    fn write(&self) -> Result<()> {
        Ok(fs::write(self.golden(), self.rendered()?)?)
    }

    fn compare(&self) -> Result<()> {
        differ(
            &objects::read(&self.rendered()?)?,
            &objects::read(&self.kept()?)?,
        )
    }
}

/// As the first line may have it: `# release NAME in NAMESPACE`.
fn release(values: &str) -> Release<'_> {
    let named = || {
        let line = values.lines().next()?.strip_prefix("# release ")?;
        let (name, namespace) = line.split_once(" in ")?;
        Some(Release { name, namespace })
    };
    named().unwrap_or(Release::USUAL)
}

fn differ(rendered: &[Object], kept: &[Object]) -> Result<()> {
    let names =
        |objects: &[Object]| -> Vec<String> { objects.iter().map(ToString::to_string).collect() };
    ensure!(
        names(rendered) == names(kept),
        "rendered are {:?}, kept {:?}",
        names(rendered),
        names(kept)
    );
    for (rendered, kept) in rendered.iter().zip(kept) {
        ensure!(
            rendered == kept,
            "{kept} is rendered as\n{:#}\nand kept as\n{:#}\n(PORTSIDE_GOLDEN=write keeps what is rendered)",
            rendered.0,
            kept.0
        );
    }
    Ok(())
}

fn base() -> Result<()> {
    let mut base = programs::kustomize(&root().join("deploy/base"))?;
    let chart = Release::USUAL.render("")?;
    let mut chart: Vec<_> = objects::read(&chart)?
        .into_iter()
        .map(Object::without_release)
        .collect();
    for objects in [&mut base, &mut chart] {
        objects.sort_by_key(ToString::to_string);
    }
    differ(&chart, &base)
}

fn cleanup() -> Result<()> {
    let text = fs::read_to_string(root().join("deploy/cleanup/daemonset.yaml"))?;
    deploy::cleanup::check(&objects::read(&text)?)
}

fn versions() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let chart = fs::read_to_string(root().join("deploy/helm/portside/Chart.yaml"))?;
    let chart = objects::read(&chart)?.remove(0);
    ensure!(*chart.at("version") == version && *chart.at("appVersion") == version);
    let base = fs::read_to_string(root().join("deploy/base/daemonset.yaml"))?;
    let base = objects::read(&base)?.remove(0);
    let image = base.at("spec/template/spec/containers/0/image");
    ensure!(*image == format!("portside:{version}"), "{image}");
    let cleanup = fs::read_to_string(root().join("deploy/cleanup/daemonset.yaml"))?;
    let image = format!("image: portside:{version}\n");
    ensure!(cleanup.matches(&image).count() == 2, "the clean-up's image");
    Ok(())
}

/// helm refuses a default that the schema does not know; what the schema knows and nobody has is seen here.
fn schema() -> Result<()> {
    let chart = root().join("deploy/helm/portside");
    let values = fs::read_to_string(chart.join("values.yaml"))?;
    let values = objects::read(&values)?.remove(0).0;
    let schema: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(chart.join("values.schema.json"))?)?;
    let mut pairs = vec![(String::new(), &schema, &values)];
    let mut closed = 0;
    while let Some((path, schema, values)) = pairs.pop() {
        let (Some(properties), Some(fields)) =
            (schema["properties"].as_object(), values.as_object())
        else {
            continue;
        };
        ensure!(
            schema["additionalProperties"] == false,
            "{path} takes anything"
        );
        closed += 1;
        for (name, value) in fields {
            let known = properties.get(name);
            pairs.push((
                format!("{path}.{name}"),
                known.with_context(|| format!("{path}.{name} is not in the schema"))?,
                value,
            ));
        }
        // Parts of the API's own types have no defaults, and helm gives every chart a `global`.
        if path.is_empty() {
            for name in properties.keys().filter(|name| *name != "global") {
                ensure!(fields.contains_key(name), "{name} is in the schema alone");
            }
        }
    }
    ensure!(closed > 10, "only {closed} objects are closed");
    Ok(())
}

fn notes() -> Result<()> {
    let usual = Release::USUAL.notes("")?;
    for line in [
        "kubectl -n kube-system rollout status daemonset/portside",
        "kubectl -n kube-system exec daemonset/portside -- /proxy-agent status",
        "It has the ports 10256 and 10249 until it stops",
        "apiServers is empty",
    ] {
        ensure!(usual.contains(line), "no {line:?} in {usual}");
    }
    let told = Release::USUAL.notes(
        "{apiServers: ['https://192.0.2.1:6443'], healthz: {port: 1}, metrics: {port: 2}}",
    )?;
    for line in ["until it stops", "apiServers is empty"] {
        ensure!(!told.contains(line), "{line:?} in {told}");
    }
    Ok(())
}
