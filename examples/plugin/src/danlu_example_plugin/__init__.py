"""Three plug-ins for Danlu, one of each kind; docs/plug-ins.md explains them."""
