//! The page docs/scaling.md: its tables stand between markers, and are made anew from the figures.

use std::{error::Error, fmt::Write};

use super::{
    figures::File,
    machine::{self, Day},
    spread,
};

/// How many devices the last table is about.
const DEVICES: [f64; 2] = [1e7, 1e9];
/// How many machines the spread is simulated over.
const MACHINES: [u64; 4] = [4, 16, 64, 1024];
/// How many people are invited at once.
const PEOPLE: [usize; 3] = [2, 10, 50];
/// The text after each table.
const END: &str = "<!-- end -->";

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The page with all its tables made of these figures.
pub(crate) fn with_tables(page: &str, figures: &str) -> Outcome<String> {
    let file: File = toml::from_str(figures)?;
    let popularity = spread::popularity(file.usage.popularity_exponent);
    let tables = [
        ("figures", measured(&file)?),
        ("day", day(&file)?),
        ("walls", walls(&file)?),
        ("moves", moves(&file)?),
        ("machines", machines(&file)?),
        ("evenness", evenness(&popularity)?),
        ("touched", touched(&popularity)?),
    ];
    tables.iter().try_fold(page.to_owned(), |page, (name, table)| between(&page, name, table))
}

/// Puts a table between its markers.
fn between(page: &str, name: &str, table: &str) -> Outcome<String> {
    let marker = format!("<!-- table: {name} -->");
    let missing = || format!("the page has no {marker} with {END} after it");
    let (before, rest) = page.split_once(&marker).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{marker}\n{table}{END}{after}"))
}

fn measured(file: &File) -> Outcome<String> {
    let mut table = head(&["figure", "value", "measured", "how"])?;
    for (name, it) in file.measured.all() {
        let value = format!("{} {}", grouped(it.value), it.unit);
        let when = format!("{}, {}", it.date, it.commit);
        row(&mut table, &[&format!("`{name}`"), &value, &when, &it.how])?;
    }
    Ok(table)
}

fn day(file: &File) -> Outcome<String> {
    let day = Day::of(&file.usage);
    let mut table = head(&["of one device", "a day"])?;
    for (what, count) in [
        ("packages uploaded", day.uploaded),
        ("of them never used, and expired", day.expired),
        ("upload requests", day.uploads),
        ("reservations, renewals and spends of its packages", day.claims),
        ("requests that only read", day.reads),
        ("events", day.events),
    ] {
        row(&mut table, &[what, &format!("{count:.2}")])?;
    }
    Ok(table)
}

fn walls(file: &File) -> Outcome<String> {
    let resources = machine::resources(file);
    let planned = file.machine.planned_share;
    let [wall, next] = machine::walls(&resources).ok_or("there is no resource")?;
    let carried = wall.devices(planned);
    let mut table = head(&[
        "resource",
        "one device takes",
        "the machine has",
        "carries, in devices",
        "used at the first wall",
    ])?;
    for resource in &resources {
        let devices = grouped(resource.devices(planned));
        let used = format!("{:.2} %", resource.used_by(carried) * 100.0);
        row(&mut table, &[resource.name, &resource.device, &resource.machine, &devices, &used])?;
    }
    let invitations = grouped(carried * file.usage.invitations_per_device_day);
    writeln!(
        table,
        "\nThe first wall is **{}**: one machine carries {} devices and {invitations} invitations a day, \
         and starts in {} s with all of their history. Behind it stands **{}**, at {} devices; with those it \
         would start in {} s.",
        wall.name,
        grouped(carried),
        grouped(machine::start_s(file, carried).ceil()),
        next.name,
        grouped(next.devices(planned)),
        grouped(machine::start_s(file, next.devices(planned)).ceil()),
    )?;
    Ok(table)
}

/// The steps that move the first wall, each with the ones before it.
fn moves(file: &File) -> Outcome<String> {
    let mut table = head(&["", "first wall", "devices on a machine", "machines for a billion"])?;
    let mut moved = file.clone();
    let mut line = |what: &str, file: &File| -> Outcome<()> {
        let resources = machine::resources(file);
        let [wall, _] = machine::walls(&resources).ok_or("there is no resource")?;
        let devices = wall.devices(file.machine.planned_share);
        let machines = grouped((1e9 / devices).ceil());
        row(&mut table, &[what, wall.name, &grouped(devices), &machines])
    };
    line("as it is", &moved)?;
    moved.usage.pool_target = 8.0;
    moved.usage.pool_low = 2.0;
    line("pools of 8 packages instead of 32", &moved)?;
    moved.machine.history_years = 0.25;
    line("histories leave the machine after three months", &moved)?;
    moved.machine.pools_in_memory_share = 0.01;
    line("one pool in a hundred is kept in memory", &moved)?;
    Ok(table)
}

fn machines(file: &File) -> Outcome<String> {
    let (day, resources) = (Day::of(&file.usage), machine::resources(file));
    let [wall, _] = machine::walls(&resources).ok_or("there is no resource")?;
    let carried = wall.devices(file.machine.planned_share);
    let [small, large] = DEVICES;
    let title = |devices: f64| format!("{} devices", grouped(devices));
    let mut table = head(&["", &title(small), &title(large)])?;
    let mut line = |what: &str, value: &dyn Fn(f64) -> f64| {
        row(&mut table, &[what, &grouped(value(small)), &grouped(value(large))])
    };
    let a_second = file.usage.peak_factor / 86_400.0;
    line("users", &|devices| devices / file.usage.devices_per_user)?;
    line("invitations a day", &|devices| devices * file.usage.invitations_per_device_day)?;
    line("events a second, at the peak", &|devices| devices * day.events * a_second)?;
    line("new disk a year, in TiB", &|devices| {
        devices * machine::disk_bytes_year(file, &day) / 1_099_511_627_776.0
    })?;
    line("machines", &|devices| (devices / carried).ceil())?;
    for resource in resources.iter().filter(|resource| resource.name != wall.name) {
        line(&format!("machines, if {} were the only wall", resource.name), &|devices| {
            (devices / resource.devices(file.machine.planned_share)).ceil()
        })?;
    }
    Ok(table)
}

fn evenness(popularity: &[f64]) -> Outcome<String> {
    let mut table = head(&[
        "machines",
        "users, fullest to mean",
        "invitations, busiest to mean",
        "of it the most popular user",
    ])?;
    for machines in MACHINES {
        let it = spread::evenness(popularity, machines);
        let count = u32::try_from(machines).map_or(f64::MAX, f64::from);
        let top = format!("{:.2}", it.top_user * count);
        let (users, load) = (format!("{:.2}", it.users), format!("{:.2}", it.load));
        row(&mut table, &[&machines.to_string(), &users, &load, &top])?;
    }
    Ok(table)
}

fn touched(popularity: &[f64]) -> Outcome<String> {
    let mut table = head(&[
        "machines",
        "people invited",
        "machines touched, mean",
        "median",
        "in the worst of 100",
        "stays on one",
    ])?;
    for machines in MACHINES {
        for people in PEOPLE {
            let it = spread::touched(popularity, machines, people);
            row(
                &mut table,
                &[
                    &machines.to_string(),
                    &people.to_string(),
                    &format!("{:.1}", it.mean),
                    &it.p50.to_string(),
                    &it.p99.to_string(),
                    &format!("{:.1} %", it.on_one * 100.0),
                ],
            )?;
        }
    }
    Ok(table)
}

/// The first two lines of a table.
fn head(titles: &[&str]) -> Outcome<String> {
    let mut table = String::new();
    row(&mut table, titles)?;
    row(&mut table, &vec!["---"; titles.len()])?;
    Ok(table)
}

fn row(table: &mut String, cells: &[&str]) -> Outcome<()> {
    Ok(writeln!(table, "| {} |", cells.join(" | "))?)
}

/// A number as people write it: three digits that count, and thousands set apart.
fn grouped(number: f64) -> String {
    if number < 100.0 {
        return format!("{number:.*}", usize::from(number.fract() != 0.0));
    }
    let digits = number.log10().floor();
    let step = 10.0_f64.powf(digits - 2.0);
    let whole = format!("{:.0}", (number / step).round() * step);
    let mut text = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if 0 < place && (whole.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
