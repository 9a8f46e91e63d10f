"""`3dtrn`: a training step described in dlcalc's YAML schema, analysed part by part."""
