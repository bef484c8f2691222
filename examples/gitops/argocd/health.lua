-- Health of Function, FunctionRoute, FunctionEgress and FunctionRuntime, by the rules of kstatus.
local health = {status = "Progressing", message = "the operator has not seen it yet"}
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end

-- What is said of an earlier spec is no answer.
if status.observedGeneration ~= obj.metadata.generation then
  health.message = "the operator has not seen the last edit yet"
  return health
end

local function holds(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

local function text(name)
  local condition = conditions[name]
  return condition.reason .. ": " .. (condition.message or "")
end

-- It can never work as it is: somebody has to change something.
if holds("Stalled") then
  return {status = "Degraded", message = text("Stalled")}
end
if holds("Reconciling") then
  return {status = "Progressing", message = text("Reconciling")}
end
if holds("Ready") then
  return {status = "Healthy", message = text("Ready")}
end
if conditions["Ready"] ~= nil then
  health.message = text("Ready")
end
return health
