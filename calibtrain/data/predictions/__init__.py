"""Predictions of any model, as users' files hold them."""
