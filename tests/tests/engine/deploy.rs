//! The dashboard and the alert rules fit the metrics that there are.

use std::collections::BTreeSet;
use std::path::Path;

use dlock_runtime::metrics::{ALL, Kind, Metric};
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

/// Labels that Prometheus adds to what it reads.
const OF_TARGETS: [&str; 2] = ["job", "instance"];

fn read(file: &str) -> String {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    std::fs::read_to_string(deploy.join(file)).expect(file)
}

/// A series in an expression: the metric, and which of its series it is.
struct Series<'a> {
    metric: &'static Metric,
    suffix: &'a str,
}

impl<'a> Series<'a> {
    fn named(name: &'a str) -> Result<Self, String> {
        let is_of = |metric: &&Metric| match metric.kind {
            Kind::Histogram => name
                .strip_prefix(metric.name)
                .is_some_and(|suffix| ["_bucket", "_sum", "_count"].contains(&suffix)),
            _ => name == metric.name,
        };
        let metric = ALL.iter().find(is_of).ok_or_else(|| format!("there is no series {name}"))?;
        Ok(Self { metric, suffix: &name[metric.name.len()..] })
    }

    fn check_label(&self, label: &str) -> Result<(), String> {
        let is_known = self.metric.labels.contains(&label)
            || OF_TARGETS.contains(&label)
            || (label == "le" && self.suffix == "_bucket");
        let name = self.metric.name;
        is_known.then_some(()).ok_or_else(|| format!("{name} has no label {label}"))
    }
}

fn is_in_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// What an expression uses. Not a parser: the names of dlock, each with its matchers, and the lists after `by`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expression {
    /// Each with the labels that its matchers name.
    series: Vec<(String, Vec<String>)>,
    by: BTreeSet<String>,
}

impl Expression {
    fn read(text: &str) -> Self {
        let mut expression = Self::default();
        let mut rest = text;
        while let Some(start) = rest.find(is_in_name) {
            let end = rest[start..].find(|c| !is_in_name(c)).map_or(rest.len(), |len| start + len);
            let (name, after) = (&rest[start..end], rest[end..].trim_start());
            rest = after;
            if name.starts_with("dlock_") {
                let (matchers, after) = enclosed(after, '{', '}');
                rest = after;
                let labels = matchers.split(',').filter_map(|one| one.split_once(['=', '!']));
                let labels = labels.map(|(label, _)| label.trim().to_owned()).collect();
                expression.series.push((name.to_owned(), labels));
            } else if name == "by" {
                let (labels, after) = enclosed(after, '(', ')');
                rest = after;
                expression.by.extend(labels.split(',').map(|label| label.trim().to_owned()));
            }
        }
        expression
    }

    /// Returns the names of the metrics.
    fn check(&self) -> Result<BTreeSet<&'static str>, String> {
        let mut names = BTreeSet::new();
        for (name, labels) in &self.series {
            let series = Series::named(name)?;
            for label in labels.iter().chain(&self.by) {
                series.check_label(label)?;
            }
            names.insert(series.metric.name);
        }
        if names.is_empty() { Err("no metric of dlock".to_owned()) } else { Ok(names) }
    }
}

/// What is between these at the beginning of the text, and what follows.
fn enclosed(text: &str, open: char, close: char) -> (&str, &str) {
    text.strip_prefix(open).and_then(|text| text.split_once(close)).unwrap_or(("", text))
}

/// What a text for people inserts: the names after `prefix`.
fn inserted<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let after = text.split(prefix).skip(1);
    after.map(|text| text.split(|c| !is_in_name(c)).next().unwrap_or_default()).collect()
}

fn check_expression(text: &str) -> BTreeSet<&'static str> {
    Expression::read(text).check().unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_dashboard_shows_every_metric_with_the_labels_it_has() {
    let dashboard: Value = serde_json::from_str(&read("grafana/dlock.json")).expect("JSON");
    let mut shown = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].as_u64()), "an id twice: {panel}");
        if panel["type"] == "row" {
            continue;
        }
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 80), "{panel}");
        for target in panel["targets"].as_array().expect("targets") {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
            let text = target["expr"].as_str().expect("an expression");
            shown.extend(check_expression(text));
            let legend = target["legendFormat"].as_str().expect("a legend");
            for label in inserted(legend, "{{") {
                assert!(Expression::read(text).by.contains(label), "{legend}: {text}");
            }
        }
    }
    for metric in ALL {
        assert!(shown.contains(metric.name), "no panel shows {}", metric.name);
    }
}

#[test]
fn the_variables_of_the_dashboard_are_labels() {
    let dashboard: Value = serde_json::from_str(&read("grafana/dlock.json")).expect("JSON");
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let named: Vec<_> = variables.iter().map(|variable| &variable["name"]).collect();
    assert_eq!(named, ["datasource", "job", "backend", "template"]);
    assert_eq!(variables[0]["type"], "datasource");
    for variable in &variables[1..] {
        let query = variable["definition"].as_str().expect("a query");
        check_expression(query);
        let label = variable["name"].as_str().expect("a name");
        assert!(query.ends_with(&format!(", {label})")), "{query}");
    }
}

#[test]
fn every_alert_says_what_to_do() {
    let rules = YamlLoader::load_from_str(&read("prometheus/dlock.rules.yml")).expect("YAML");
    let rules: Vec<&Yaml> =
        rules[0]["groups"][0]["rules"].as_vec().expect("rules").iter().collect();
    assert!(rules.len() >= 6, "{rules:?}");
    for rule in rules {
        let text = |value: &Yaml| value.as_str().unwrap_or_else(|| panic!("{rule:?}")).to_owned();
        let expression = text(&rule["expr"]);
        check_expression(&expression);
        text(&rule["for"]);
        assert!(["warning", "critical"].contains(&text(&rule["labels"]["severity"]).as_str()));
        let [summary, description] =
            ["summary", "description"].map(|one| text(&rule["annotations"][one]));
        assert!(description.contains("`dlock --backend URL "), "{description}");
        for label in inserted(&format!("{summary} {description}"), "$labels.") {
            assert!(Expression::read(&expression).by.contains(label), "{label}: {rule:?}");
        }
    }
}

#[test]
fn every_alert_has_a_test() {
    let [rules, tests] =
        ["rules", "rules.test"].map(|file| read(&format!("prometheus/dlock.{file}.yml")));
    YamlLoader::load_from_str(&tests).expect("YAML");
    let alerts = inserted(&rules, "alert: ");
    assert!(alerts.len() >= 6, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(alert), "no test of {alert}");
    }
}

#[test]
fn names_and_labels_are_found_in_an_expression() {
    let text = r#"sum by (holder, le) (rate(dlock_blame_seconds_sum{job=~"$job", holder!="a"}[5m])) / dlock_held"#;
    let read = Expression::read(text);
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let series = [
        ("dlock_blame_seconds_sum".to_owned(), names(&["job", "holder"])),
        ("dlock_held".to_owned(), vec![]),
    ];
    assert_eq!(read.series, series);
    assert_eq!(read.by, names(&["holder", "le"]).into_iter().collect());
    let refused = |text, expected: &str| {
        assert_eq!(Expression::read(text).check().expect_err(text), expected);
    };
    refused("rate(dlock_blame_seconds[1m])", "there is no series dlock_blame_seconds");
    refused("dlock_held_sum", "there is no series dlock_held_sum");
    refused("sum by (holder) (dlock_held)", "dlock_held has no label holder");
    refused(r#"dlock_held{le="1"}"#, "dlock_held has no label le");
    refused("up", "no metric of dlock");
}
