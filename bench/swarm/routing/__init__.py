"""Compare routing and placement with the exact optimum, with Petals' rules and with Parallax's."""
