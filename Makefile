.PHONY: demo

# Builds the orders application, sends it thousands of real purchases, kills it in the middle, and checks every invariant.
demo:
	@echo "building (a few minutes the first time) ..."
	@cargo build --release --quiet -p tandem-cli -p orders
	@target/release/orders-demo
