"""Events of Stripe, as they come and as they are tried out."""
