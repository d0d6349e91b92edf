-- Naming the columns fixes what the model is trained on, and what its API asks for.
SELECT
    patient_id,
    age,
    sex,
    bmi,
    blood_pressure,
    total_cholesterol,
    ldl,
    hdl,
    cholesterol_hdl_ratio,
    log_triglycerides,
    glucose,
    progression
FROM diabetes
