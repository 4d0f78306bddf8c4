"""View: the circuit behind one prediction."""
