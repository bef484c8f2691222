//! What the demo does: a catalogue, stock, wallets and orders, made from real purchases and one seed.
//!
//! **Invariant:** pure. The same purchases and the same seed give the same plan.

use std::collections::BTreeMap;

use orders::order::Wanted;
use orders::{Cents, Line};

use crate::dice::Dice;

/// Prices of the catalogue. The items of the file cost 14.80 dollars on average.
const PRICES: [Cents; 20] = [
    399, 599, 799, 899, 999, 1_099, 1_149, 1_199, 1_249, 1_299, 1_349, 1_399, 1_449, 1_499, 1_599, 1_799, 1_999, 2_499,
    2_999, 4_999,
];
/// Discs that share one price.
const ITEMS_PER_PRICE: u64 = 10;
/// One disc in this many is scarce.
const SCARCE_EVERY: usize = 7;
/// How much of the demand there is of a scarce disc.
const SCARCE_PERCENT: i64 = 55;
/// Left over of a disc that is not scarce, if every order is filled.
const SPARE_STOCK: i64 = 5;
/// One customer in this many is short of money.
const POOR_EVERY: usize = 11;
/// How much of what they would spend poor customers have.
const POOR_PERCENT: i64 = 60;
/// Left over in the wallet of other customers, if every order is filled.
const SPARE_CENTS: Cents = 1_000;
/// One order in this many takes its lines from the customer's cart.
const CART_EVERY: u64 = 4;
/// Nobody sells this disc.
pub(crate) const UNKNOWN_SKU: &str = "sku-unknown";
/// This disc is in the catalogue, and sold out.
pub(crate) const SOLD_OUT_SKU: &str = "sku-sold-out";
/// More than there ever is of any disc.
const FAR_TOO_MANY: i64 = 50_000;

/// One line of the purchase file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Purchase {
    /// Number of the customer in the sample.
    pub(crate) customer: u32,
    /// Year, month, day as one number, so that it sorts.
    pub(crate) date: u32,
    /// How many CDs.
    pub(crate) quantity: i64,
    /// What was paid.
    pub(crate) paid: Cents,
}

/// Why a purchase file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the purchases has no {what}: {text:?}")]
pub(crate) struct BadPurchase {
    line: usize,
    what: &'static str,
    text: String,
}

/// Reads the purchase file; its columns are described beside it.
pub(crate) fn parse_purchases(text: &str) -> Result<Vec<Purchase>, BadPurchase> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| parse_purchase(index + 1, line)).collect()
}

fn parse_purchase(line: usize, text: &str) -> Result<Purchase, BadPurchase> {
    let bad = |what| BadPurchase { line, what, text: text.to_owned() };
    let columns: Vec<&str> = text.split_whitespace().collect();
    let [_, customer, date, quantity, dollars] = columns[..] else { return Err(bad("five columns")) };
    let (whole, cents) = dollars.split_once('.').ok_or_else(|| bad("dollars and cents"))?;
    let whole: Cents = whole.parse().map_err(|_| bad("dollars"))?;
    let cents: Cents = cents.parse().map_err(|_| bad("cents"))?;
    Ok(Purchase {
        customer: customer.parse().map_err(|_| bad("customer"))?,
        date: date.parse().map_err(|_| bad("date"))?,
        quantity: quantity.parse().map_err(|_| bad("quantity"))?,
        paid: whole * 100 + cents,
    })
}

/// One disc of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its stock keeping unit.
    pub(crate) sku: String,
    /// What one costs.
    pub(crate) price: Cents,
    /// How many there are at first.
    pub(crate) stock: i64,
}

/// What is special about an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Twist {
    /// Nothing.
    Plain,
    /// One of its lines names a disc that does not exist.
    UnknownItem,
    /// Its third and last line is sold out, so what the first two did must be undone.
    LastSoldOut,
    /// It wants more of a disc than there ever is.
    TooMany,
    /// The same request is sent several times, at once and later.
    SentAgain,
    /// Its request id is used again for a different body.
    OtherBody,
    /// It is placed a second time by another request.
    PlacedTwice,
}

impl Twist {
    /// Whether there is no way to fill such an order.
    pub(crate) fn cannot_be_filled(self) -> bool {
        matches!(self, Self::UnknownItem | Self::LastSoldOut | Self::TooMany)
    }

    /// For one order in a thousand each: how many have which twist.
    fn draw(dice: &mut Dice) -> Self {
        match dice.below(1_000) {
            0..10 => Self::UnknownItem,
            10..20 => Self::LastSoldOut,
            20..26 => Self::TooMany,
            26..81 => Self::SentAgain,
            81..91 => Self::OtherBody,
            91..101 => Self::PlacedTwice,
            _ => Self::Plain,
        }
    }
}

/// One order that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// The order's id.
    pub(crate) id: String,
    /// Who orders.
    pub(crate) customer: String,
    /// What is ordered.
    pub(crate) lines: Vec<Line>,
    /// Whether the lines are put into the cart first.
    pub(crate) from_cart: bool,
    /// What is special about it.
    pub(crate) twist: Twist,
}

impl Planned {
    /// The id of the request that places it.
    pub(crate) fn request_id(&self) -> String {
        format!("place-{}", self.id)
    }

    /// The body of the request that places it.
    pub(crate) fn body(&self) -> Wanted {
        let lines = (!self.from_cart).then(|| self.lines.clone());
        Wanted { customer: self.customer.clone(), lines }
    }
}

/// Everything the demo does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The catalogue with its stock.
    pub(crate) items: Vec<Item>,
    /// What each customer has at first.
    pub(crate) wallets: BTreeMap<String, Cents>,
    /// The orders, by date.
    pub(crate) orders: Vec<Planned>,
}

impl Plan {
    /// Makes a plan from purchases.
    pub(crate) fn new(mut purchases: Vec<Purchase>, seed: u64) -> Self {
        purchases.sort_by_key(|purchase| purchase.date); // stable: within a day in the order of the file
        let mut dice = Dice::new(seed);
        let prices = catalogue();
        let orders: Vec<Planned> = purchases
            .iter()
            .enumerate()
            .map(|(index, purchase)| planned(index + 1, purchase, &prices, &mut dice))
            .collect();
        let items = stocked(prices, &orders);
        let wallets = filled(&items, &orders);
        Self { items, wallets, orders }
    }
}

/// Price by disc: `sku-01-1` to `sku-20-10`, the first number naming the price band.
fn catalogue() -> BTreeMap<String, Cents> {
    let bands = PRICES.iter().enumerate();
    bands.flat_map(|(band, price)| (0..ITEMS_PER_PRICE).map(move |item| (sku(band, item), *price))).collect()
}

fn sku(band: usize, item: u64) -> String {
    format!("sku-{:02}-{:02}", band + 1, item + 1)
}

fn planned(number: usize, purchase: &Purchase, prices: &BTreeMap<String, Cents>, dice: &mut Dice) -> Planned {
    let mut lines = lines(purchase, prices, dice);
    let mut twist = Twist::draw(dice);
    match twist {
        Twist::UnknownItem => lines.push(Line { sku: UNKNOWN_SKU.to_owned(), quantity: 1 }),
        Twist::TooMany => lines[0].quantity = FAR_TOO_MANY,
        Twist::LastSoldOut if lines.len() >= 2 => {
            lines.truncate(2);
            lines.push(Line { sku: SOLD_OUT_SKU.to_owned(), quantity: 1 });
        }
        Twist::LastSoldOut => twist = Twist::Plain,
        Twist::Plain | Twist::SentAgain | Twist::OtherBody | Twist::PlacedTwice => {}
    }
    Planned {
        id: format!("o-{number:05}"),
        customer: format!("c-{:04}", purchase.customer),
        lines,
        // An order that is placed twice would find the cart empty the second time, which is another "no" than the one we want to see.
        from_cart: dice.below(CART_EVERY) == 0 && !matches!(twist, Twist::PlacedTwice | Twist::OtherBody),
        twist,
    }
}

/// Spreads the CDs of a purchase over discs whose prices come near what was paid. The same disc may be on two lines.
fn lines(purchase: &Purchase, prices: &BTreeMap<String, Cents>, dice: &mut Dice) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut left = purchase.paid;
    for remaining in (1..=purchase.quantity.max(1)).rev() {
        let target = left / remaining;
        let band = (0..PRICES.len()).min_by_key(|band| PRICES[*band].abs_diff(target)).unwrap_or(0);
        let sku = sku(band, dice.skewed(ITEMS_PER_PRICE));
        left -= prices.get(&sku).copied().unwrap_or(target);
        match lines.last_mut() {
            Some(last) if last.sku == sku => last.quantity += 1,
            _ => lines.push(Line { sku, quantity: 1 }),
        }
    }
    lines
}

/// The catalogue with enough of most discs for all orders that can be filled, and too little of some.
fn stocked(prices: BTreeMap<String, Cents>, orders: &[Planned]) -> Vec<Item> {
    let mut demand: BTreeMap<&str, i64> = BTreeMap::new();
    for line in fillable(orders).flat_map(|order| &order.lines) {
        *demand.entry(&line.sku).or_default() += line.quantity;
    }
    let stock = |index: usize, sku: &str| {
        let demand = demand.get(sku).copied().unwrap_or(0);
        if index.is_multiple_of(SCARCE_EVERY) { demand * SCARCE_PERCENT / 100 } else { demand + SPARE_STOCK }
    };
    let enumerated = prices.into_iter().enumerate();
    let mut items: Vec<Item> =
        enumerated.map(|(index, (sku, price))| Item { stock: stock(index, &sku), sku, price }).collect();
    items.push(Item { sku: SOLD_OUT_SKU.to_owned(), price: PRICES[0], stock: 0 });
    items
}

/// Enough money for most customers, too little for some.
fn filled(items: &[Item], orders: &[Planned]) -> BTreeMap<String, Cents> {
    let prices: BTreeMap<&str, Cents> = items.iter().map(|item| (item.sku.as_str(), item.price)).collect();
    let mut needs: BTreeMap<&str, Cents> = orders.iter().map(|order| (order.customer.as_str(), 0)).collect();
    for order in fillable(orders) {
        let total: Cents =
            order.lines.iter().map(|line| line.quantity * prices.get(line.sku.as_str()).unwrap_or(&0)).sum();
        *needs.entry(&order.customer).or_default() += total;
    }
    let balance = |index: usize, need: Cents| {
        if index.is_multiple_of(POOR_EVERY) { need * POOR_PERCENT / 100 } else { need + SPARE_CENTS }
    };
    let enumerated = needs.into_iter().enumerate();
    enumerated.map(|(index, (customer, need))| (customer.to_owned(), balance(index, need))).collect()
}

fn fillable(orders: &[Planned]) -> impl Iterator<Item = &Planned> {
    orders.iter().filter(|order| !order.twist.cannot_be_filled())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURCHASES: &str = include_str!("../../data/cdnow-sample.txt");
    const SEED: u64 = 1;

    #[test]
    fn the_file_is_read_completely() {
        let purchases = parse_purchases(PURCHASES).unwrap();
        assert_eq!(purchases.len(), 6_919);
        assert_eq!(purchases[0], Purchase { customer: 1, date: 19_970_101, quantity: 2, paid: 2_933 });
        assert_eq!(purchases.iter().map(|purchase| purchase.quantity).sum::<i64>(), 16_479);
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = parse_purchases(" 00004 0001 19970101  2   29.33\n 00004 0001 1997").unwrap_err();
        assert_eq!(error.to_string(), "line 2 of the purchases has no five columns: \" 00004 0001 1997\"");
    }

    #[test]
    fn the_same_seed_gives_the_same_plan() {
        let purchases = parse_purchases(PURCHASES).unwrap();
        let plan = Plan::new(purchases.clone(), SEED);
        assert_eq!(plan, Plan::new(purchases.clone(), SEED));
        assert_ne!(plan, Plan::new(purchases, SEED + 1));
    }

    #[test]
    fn totals_come_near_what_was_paid() {
        let purchases = parse_purchases(PURCHASES).unwrap();
        let prices = catalogue();
        let mut dice = Dice::new(SEED);
        let mut off_by: Vec<u64> = Vec::new();
        for purchase in &purchases {
            let lines = lines(purchase, &prices, &mut dice);
            let total: Cents = lines.iter().map(|line| line.quantity * prices[&line.sku]).sum();
            assert_eq!(lines.iter().map(|line| line.quantity).sum::<i64>(), purchase.quantity);
            off_by.push(total.abs_diff(purchase.paid));
        }
        off_by.sort_unstable();
        assert!(
            off_by[off_by.len() / 2] <= 50,
            "half of the orders are within 50 cents, but: {}",
            off_by[off_by.len() / 2]
        );
    }

    #[test]
    fn every_twist_and_a_disc_on_two_lines_are_in_it() {
        let plan = Plan::new(parse_purchases(PURCHASES).unwrap(), SEED);
        let twists: std::collections::BTreeSet<Twist> = plan.orders.iter().map(|order| order.twist).collect();
        assert_eq!(twists.len(), 7);
        let doubled = |order: &Planned| {
            let skus: std::collections::BTreeSet<&str> = order.lines.iter().map(|line| line.sku.as_str()).collect();
            skus.len() < order.lines.len()
        };
        assert!(plan.orders.iter().any(doubled));
        let last_sold_out = plan.orders.iter().filter(|order| order.twist == Twist::LastSoldOut);
        assert!(last_sold_out.clone().count() > 0);
        assert!(last_sold_out.clone().all(|order| order.lines.len() == 3 && order.lines[2].sku == SOLD_OUT_SKU));
    }
}
