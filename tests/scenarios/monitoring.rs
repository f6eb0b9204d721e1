//! The alert rules and the dashboard that come with the clinic, as Prometheus' own tool reads them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use shared::alert::AlertName;
use tests::monitoring::{dashboard, expressions, folder, metrics_named, rules};
use tests::validators::promtool_says;

/// The rules and their tests in a folder of their own, something in the rules replaced.
fn copied(to: &Path, from: &str, with: &str) -> PathBuf {
    let text = rules();
    assert!(from.is_empty() || text.contains(from), "{from}");
    std::fs::write(to.join("roomscribe.rules.yml"), text.replacen(from, with, usize::from(!from.is_empty()))).unwrap();
    let tests = to.join("roomscribe.rules.test.yml");
    std::fs::copy(folder().join("roomscribe.rules.test.yml"), &tests).unwrap();
    tests
}

#[test]
fn promtool_takes_the_rules_and_what_they_tell() {
    promtool_says(&["check", "rules"], &folder().join("roomscribe.rules.yml")).unwrap();
    promtool_says(&["test", "rules"], &folder().join("roomscribe.rules.test.yml")).unwrap();
    let mistaken = tempfile::tempdir().unwrap();
    for (from, with) in [
        (r#"{alert="breaker_open"} == 1"#, r#"{alert="breaker_open"} == 0"#),
        ("for: 15m", "for: 1m"),
        ("severity: critical", "severity: warning"),
        (r#"{result="refused"}"#, ""),
        ("> 80", "> 90"),
    ] {
        let tests = copied(mistaken.path(), from, with);
        assert!(promtool_says(&["test", "rules"], &tests).is_err(), "{from} became {with}");
    }
    copied(mistaken.path(), "expr: absent(", "expr: absent((");
    assert!(promtool_says(&["check", "rules"], &mistaken.path().join("roomscribe.rules.yml")).is_err());
}

#[test]
fn each_of_the_guides_alerts_has_a_rule_and_each_rule_a_test() {
    let (rules, tests) = (rules(), std::fs::read_to_string(folder().join("roomscribe.rules.test.yml")).unwrap());
    for alert in AlertName::ALL {
        let expression = format!(r#"expr: roomscribe_alert_firing{{alert="{}"}} == 1"#, alert.name());
        assert_eq!(rules.matches(&expression).count(), 1, "{expression}");
    }
    let names: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
    for name in names {
        let is_told = [format!("alertname: {name}\n"), format!(r#"alertname="{name}""#)];
        assert!(is_told.iter().any(|told| tests.contains(told)), "nothing tests {name}");
    }
}

/// Recording rules of all expressions: promtool checks an expression nowhere else.
fn as_rules(expressions: &[String]) -> String {
    let plain = expressions.iter().map(|e| e.replace("$box", "room-1").replace('\'', "''"));
    let rules = plain.enumerate().map(|(n, e)| format!("  - {{ record: 'panel:{n}', expr: '{e}' }}\n"));
    format!("groups:\n- name: dashboard\n  rules:\n{}", rules.collect::<String>())
}

#[test]
fn every_expression_of_the_dashboard_is_one_to_promtool() {
    let dashboard = dashboard();
    let expressions = expressions(&dashboard);
    assert!(expressions.len() > 20 && metrics_named(&expressions.join(" ")).len() > 15);
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("dashboard.yml");
    std::fs::write(&file, as_rules(&expressions)).unwrap();
    promtool_says(&["check", "rules"], &file).unwrap();
    std::fs::write(&file, as_rules(&["sum(roomscribe_sessions by (place)".to_owned()])).unwrap();
    assert!(promtool_says(&["check", "rules"], &file).is_err());
}

#[test]
fn panels_have_a_place_and_an_id_of_their_own() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    let edge = |panel: &Value, key: &str| panel["gridPos"][key].as_u64().unwrap();
    let mut taken = BTreeSet::new();
    for panel in panels {
        let (x, y) = (edge(panel, "x"), edge(panel, "y"));
        assert!(x + edge(panel, "w") <= 24);
        for column in x..x + edge(panel, "w") {
            for line in y..y + edge(panel, "h") {
                assert!(taken.insert((column, line)), "{} lies over another", panel["title"]);
            }
        }
    }
}
