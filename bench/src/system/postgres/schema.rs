//! Tables, and the function that is a request, for each workload.

use crate::workload::{Family, Workload};

/// Calls the function. `NULL` where there is no order.
pub(crate) const REQUEST: &str = "SELECT request($1::text, $2::text, $3::bigint[], $4::bigint[], $5::text, $6::bigint)";

/// Makes a row as long as the 128 bytes that others store.
const FILLER_BYTES: usize = 112;

/// The declaration of the function; the parameters are those of [`REQUEST`].
const HEAD: &str = "CREATE FUNCTION request(p_id text, p_record text, p_rows bigint[], p_by bigint[], p_order text, \
                    p_total bigint) RETURNS boolean LANGUAGE plpgsql AS $$ ";

/// What ends every request that was applied.
const COMMITTED: &str = "INSERT INTO requests VALUES (p_id::uuid, true, p_record); RETURN true; END $$;";
/// What ends every request that was not.
const REJECTED: &str = "INSERT INTO requests VALUES (p_id::uuid, false, p_record); RETURN false; ";

const COUNTER: &str = "BEGIN UPDATE counter SET value = value + p_by[1] WHERE id = p_rows[1]; ";

const TRANSFER: &str = "DECLARE v_balance bigint; BEGIN \
    PERFORM 1 FROM account WHERE id = ANY(p_rows) ORDER BY id FOR UPDATE; \
    SELECT value INTO v_balance FROM account WHERE id = p_rows[1]; \
    IF v_balance + p_by[1] < 0 THEN {REJECTED} END IF; \
    UPDATE account a SET value = a.value + c.by FROM unnest(p_rows, p_by) AS c(id, by) WHERE a.id = c.id; ";

const CHAIN: &str = "BEGIN \
    PERFORM 1 FROM step WHERE id = ANY(p_rows) ORDER BY id FOR UPDATE; \
    UPDATE step SET value = value + 1 WHERE id = ANY(p_rows); ";

/// The rows are those of the cart, of the stock, of who pays, and of the points.
const CHECKOUT: &str = "DECLARE v_count int := cardinality(p_rows); v_found int; BEGIN \
    PERFORM 1 FROM stock WHERE id = ANY(p_rows[2:v_count - 2]) ORDER BY id FOR UPDATE; \
    GET DIAGNOSTICS v_found = ROW_COUNT; \
    IF v_found < v_count - 3 THEN {REJECTED} END IF; \
    UPDATE stock s SET value = s.value + c.by \
        FROM unnest(p_rows[2:v_count - 2], p_by[2:v_count - 2]) AS c(id, by) WHERE s.id = c.id; \
    UPDATE cart SET value = value + 1 WHERE id = p_rows[1]; \
    UPDATE payment SET value = value + p_by[v_count - 1] WHERE id = p_rows[v_count - 1]; \
    UPDATE loyalty SET value = value + p_by[v_count] WHERE id = p_rows[v_count]; \
    INSERT INTO orders VALUES (p_order, p_total); ";

/// The table of a function's instances.
pub(crate) fn table(function: &str) -> &str {
    function
}

/// Drops what is there, makes the tables of `workload`, and fills them.
pub(crate) fn script(workload: Workload) -> anyhow::Result<String> {
    let body = match workload {
        Workload::Counter { functions: 0, .. } => COUNTER,
        Workload::Counter { .. } => anyhow::bail!("functions that are only declared mean nothing to PostgreSQL"),
        Workload::Transfer { .. } => TRANSFER,
        Workload::Chain { .. } => CHAIN,
        Workload::Reading { .. } => anyhow::bail!("PostgreSQL is not asked to read what it does not write"),
        Workload::Checkout { .. } => CHECKOUT,
    };
    let mut script = "DROP SCHEMA public CASCADE; CREATE SCHEMA public; \
         CREATE TABLE requests (id uuid PRIMARY KEY, committed boolean NOT NULL, record text NOT NULL); \
         CREATE TABLE orders (id text PRIMARY KEY, value bigint NOT NULL); "
        .to_owned();
    for Family { function, rows, initial } in workload.families() {
        let table = table(&function);
        script.push_str(&format!(
            "CREATE TABLE {table} (id bigint PRIMARY KEY, value bigint NOT NULL CHECK (value >= 0), filler text NOT NULL); \
             INSERT INTO {table} SELECT id, {initial}, repeat('x', {FILLER_BYTES}) FROM generate_series(0, {rows} - 1) AS id; "
        ));
    }
    Ok(format!("{script} {HEAD} {} {COMMITTED}", body.replace("{REJECTED}", REJECTED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_a_workload_is_made_and_filled() {
        let script = script(Workload::Checkout { skewed: true }).unwrap();
        for table in ["cart", "stock", "payment", "loyalty", "orders", "requests"] {
            assert!(script.contains(&format!("CREATE TABLE {table} ")), "{table}");
        }
        assert!(script.contains("INSERT INTO stock SELECT id, 1000000000,"));
        assert!(!script.contains("{REJECTED}"));
    }
}
